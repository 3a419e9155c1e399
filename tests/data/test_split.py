"""Stratified choices keep the shares of the classes, whatever their sizes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cnntrain.data.split import count_of, fold_numbers, stratified_split, take_per_class
from cnntrain.errors import DataError

seeds = st.integers(0, 2**63 - 1)


def of_sizes(*sizes):
    """Labels in mixed order."""
    labels = torch.tensor([label for label, size in enumerate(sizes) for _ in range(size)])
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]


# Up to six classes in mixed order, some of them empty and some with one image or two.
some_labels = (
    st.lists(st.sampled_from([0, 1, 2, 3, 10, 30]), min_size=1, max_size=6)
    .filter(lambda sizes: sum(sizes) > 1)
    .map(lambda sizes: of_sizes(*sizes))
)


def counted(labels, chosen):
    return labels[chosen].bincount(minlength=int(labels.max()) + 1)


@given(some_labels, seeds, st.booleans())
def test_a_choice_and_its_rest_are_all_images_and_no_class_vanishes(labels, seed, leave):
    sizes = labels.bincount()
    present, shared = int((sizes > 0).sum()), sizes >= 2
    for count in range(1, len(labels) + 1):
        chosen, rest = stratified_split(labels, count, seed, leave=leave)
        assert sorted(chosen.tolist() + rest.tolist()) == list(range(len(labels)))
        assert all((one.diff() > 0).all() for one in (chosen, rest) if len(one) > 1)
        assert chosen.equal(stratified_split(labels, count, seed, leave=leave)[0])
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


@given(some_labels, seeds)
def test_a_class_keeps_its_share_up_to_one_image_where_each_is_due_one(labels, seed):
    sizes = labels.bincount()
    least = -(-len(labels) // int(sizes[sizes > 0].min()))  # of so many, one is due to the smallest class
    for count in range(least, len(labels) + 1):
        found = counted(labels, stratified_split(labels, count, seed)[0])
        assert ((found - sizes * count / len(labels)).abs() < 1).all()


@given(some_labels, seeds)
def test_a_few_of_each_class_are_so_many_or_all_and_are_among_those_of_more(labels, seed):
    before = set()
    for most in range(1, len(labels) + 2):
        chosen = take_per_class(labels, most, seed)
        assert (chosen.diff() > 0).all()
        assert counted(labels, chosen).equal(labels.bincount().clamp(max=most))
        assert before <= set(chosen.tolist())
        before = set(chosen.tolist())


@given(some_labels, seeds, st.integers(2, 9))
def test_folds_part_the_images_evenly_in_all_and_by_class(labels, seed, folds):
    numbers = fold_numbers(labels, folds, seed)
    assert numbers.equal(fold_numbers(labels, folds, seed))
    sizes = labels.bincount()
    assert (numbers == -1).equal((sizes == 1)[labels])
    for some in (numbers >= 0, *(labels == label for label in range(len(sizes)) if sizes[label] > 1)):
        dealt = numbers[some].bincount(minlength=folds)
        assert dealt.max() - dealt.min() <= 1


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
        assert counted(labels, stratified_split(labels, count, 0)[0]).tolist() == wanted
    rare = of_sizes(96, 2, 2)
    assert counted(rare, stratified_split(rare, 5, 0)[0]).tolist() == [3, 1, 1]  # 4.8, 0.1 and 0.1
    assert counted(rare, stratified_split(rare, 2, 0)[0]).tolist() == [2, 0, 0]


def test_a_choice_depends_on_its_seed_alone():
    labels = of_sizes(20, 20)
    first, again, other = (stratified_split(labels, 10, *seed)[0].tolist() for seed in ((1, 2), (1, 2), (1, 3)))
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
