"""Splits of images with sets of labels: seeded, each part with its share of every label."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from cnntrain.data.group_split import group_folds, group_split
from cnntrain.data.set_split import deal, set_folds, split_sets
from cnntrain.data.split import fold_numbers, stratified_split


def sets(images: int, seed: int, classes: int = 6) -> torch.Tensor:
    """Labels of falling frequency, down to one image of a hundred; bool (N, K)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(images, classes, generator=generator) < torch.logspace(-0.4, -2, classes)


@settings(max_examples=30, deadline=None)
@given(some.integers(4, 120), some.integers(0, 1000), some.floats(0.05, 0.95))
def test_a_part_and_the_rest_hold_each_image_once_and_the_rest_every_label(images, seed, share):
    labels = sets(images, seed)
    count = max(1, round(share * images))
    chosen, rest = stratified_split(labels, count, seed, leave=True)
    assert torch.equal(torch.cat([chosen, rest]).sort().values, torch.arange(images))
    assert torch.equal(labels[rest].any(0), labels.any(0))
    assert all(
        torch.equal(one, other)
        for one, other in zip((chosen, rest), split_sets(labels, count, seed, leave=True), strict=True)
    )


def test_each_label_keeps_its_share_where_chance_would_not():
    labels = sets(2000, 0)
    chosen, _ = stratified_split(labels, 200, 3, leave=True)
    assert abs(len(chosen) - 200) <= 2
    wanted = labels.sum(0) / 10
    assert ((labels[chosen].sum(0) - wanted).abs() <= 1.5).all()
    by_chance = torch.randperm(2000, generator=torch.Generator().manual_seed(3))[:200]
    assert ((labels[by_chance].sum(0) - wanted).abs() > 1.5).any()


@pytest.mark.parametrize("count", [20, 100, 300, 950])
def test_rare_labels_leave_a_part_its_size_and_no_fewer_labels_than_chance(count):
    draw = torch.Generator().manual_seed(0)
    rare = torch.zeros(1000, 1000, dtype=torch.bool)
    rare[torch.arange(1000).repeat(2), torch.randint(1000, (2000,), generator=draw)] = True
    labels = torch.cat([rare, torch.zeros(100, 1000, dtype=torch.bool)])
    chosen, rest = split_sets(labels, count, 1)
    assert len(chosen) == pytest.approx(count, rel=0.1)
    assert len(chosen) + len(rest) == len(labels)
    by_chance = torch.randperm(len(labels), generator=draw)[:count]
    assert labels[chosen].any(0).sum() >= 0.95 * labels[by_chance].any(0).sum()
    assert float(labels[chosen].sum(1).double().mean()) == pytest.approx(float(labels.sum(1).double().mean()), abs=0.2)


def test_another_seed_gives_other_parts_and_the_same_one_the_same():
    labels = sets(300, 1)
    first, again, other = (deal(labels, (0.2, 0.8), seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_folds_are_alike_in_size_and_labels_and_a_label_of_one_image_is_always_trained_on():
    labels = sets(500, 2)
    labels[:, 5] = False
    labels[7, 5] = True
    numbers = fold_numbers(labels, 5, 0)
    assert torch.equal(numbers, set_folds(labels, 5, 0))
    assert numbers[7] == -1
    sizes = torch.stack([labels[numbers == fold].sum(0) for fold in range(5)])
    assert (sizes.max(0).values - sizes.min(0).values <= 2).all()
    assert all(abs(int((numbers == fold).sum()) - 100) <= 2 for fold in range(5))


@settings(max_examples=20, deadline=None)
@given(some.integers(20, 120), some.integers(0, 1000))
def test_groups_are_never_parted_whatever_their_labels(images, seed):
    labels = sets(images, seed)
    groups = torch.randint(10, (images,), generator=torch.Generator().manual_seed(seed))
    chosen, rest = group_split(labels, groups, images // 4, seed)
    assert not set(groups[chosen].tolist()) & set(groups[rest].tolist())
    assert torch.equal(labels[rest].any(0), labels.any(0))
    numbers = group_folds(labels, groups, 3, seed)
    assert all(len(numbers[groups == group].unique()) == 1 for group in groups.unique())
