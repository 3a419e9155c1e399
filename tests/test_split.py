"""Stratified choices keep the shares of the classes, whatever their sizes."""

import numpy as np
import pytest
import torch

from cnntrain.data.split import count_of, fold_numbers, stratified
from cnntrain.errors import DataError


def of_sizes(*sizes):
    """Labels in mixed order."""
    labels = torch.tensor([label for label, size in enumerate(sizes) for _ in range(size)])
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]


def drawn(seed):
    """Up to six classes, some of them empty and some with one image or two."""
    draw = np.random.default_rng(seed)
    sizes = draw.choice([0, 1, 2, 3, 10, 50], draw.integers(2, 7))
    return of_sizes(*(sizes if sizes.sum() > 1 else [2, 2]))


def counted(labels, chosen):
    return labels[chosen].bincount(minlength=int(labels.max()) + 1)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("leave", [False, True])
def test_a_choice_and_its_rest_are_all_images_and_no_class_vanishes(seed, leave):
    labels = drawn(seed)
    sizes = labels.bincount()
    present, shared = int((sizes > 0).sum()), sizes >= 2
    for count in range(1, len(labels) + 1):
        chosen, rest = stratified(labels, count, seed, leave=leave)
        assert sorted(chosen.tolist() + rest.tolist()) == list(range(len(labels)))
        assert all((one.diff() > 0).all() for one in (chosen, rest) if len(one) > 1)
        found = counted(labels, chosen)
        if leave:
            assert (found[shared] >= 1).all()
            assert (found[shared] < sizes[shared]).all()
            assert (found[~shared] == 0).all()
            most = int((sizes - 1).clamp(0).sum())
            assert len(chosen) == min(max(count, int(shared.sum())), most)
        else:
            assert len(chosen) == count
            assert count < present or (found[sizes > 0] >= 1).all()


def test_shares_go_by_the_largest_remainders():
    labels = of_sizes(50, 30, 20)
    for count, wanted in {
        10: [5, 3, 2],
        11: [6, 3, 2],  # 5.5, 3.3 and 2.2
        13: [6, 4, 3],  # 6.5, 3.9 and 2.6
        14: [7, 4, 3],  # 7, 4.2 and 2.8
        2: [1, 1, 0],  # 1, 0.6 and 0.4
        3: [1, 1, 1],  # 1.5, 0.9 and 0.6: as many images as classes, and each has one
        1: [1, 0, 0],
    }.items():
        assert counted(labels, stratified(labels, count, 0)[0]).tolist() == wanted
    rare = of_sizes(96, 2, 2)
    assert counted(rare, stratified(rare, 5, 0)[0]).tolist() == [3, 1, 1]  # 4.8, 0.1 and 0.1
    assert counted(rare, stratified(rare, 2, 0)[0]).tolist() == [2, 0, 0]


def test_a_choice_depends_on_its_seed_alone():
    labels = of_sizes(20, 20)
    first, again, other = (stratified(labels, 10, *seed)[0].tolist() for seed in ((1, 2), (1, 2), (1, 3)))
    assert first == again != other


def test_folds_deal_each_class_out_evenly_and_go_on_where_the_last_one_ended():
    labels = of_sizes(7, 1, 2, 0, 6)
    numbers = fold_numbers(labels, 3, 0)
    assert numbers[labels == 1].tolist() == [-1]
    assert [sorted(numbers[labels == one].tolist()) for one in (0, 2, 4)] == [
        [0, 0, 0, 1, 1, 2, 2],
        [1, 2],
        [0, 0, 1, 1, 2, 2],
    ]


def test_a_count_may_be_all_images_and_a_fraction_is_at_least_one():
    assert [count_of("data.val", value, 10) for value in (1, 10, 0.01, 0.14, 0.26, 0.999)] == [1, 10, 1, 1, 3, 10]
    with pytest.raises(DataError, match=r"^data\.val: 11 images are more than the 10 of the training data"):
        count_of("data.val", 11, 10)
