"""Few images: fitted batch sizes, few-shot subsets, folds, and splits of classes with hardly any images."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import DataSettings, Sampling
from cnntrain.config.schema.loss import LossSettings
from cnntrain.data.build import build_data, build_eval_data
from cnntrain.data.split import fold_numbers, take_per_class
from cnntrain.errors import DataError
from cnntrain.training.class_weights import class_weights

CPU = torch.device("cpu")


def paint(folder, sizes):
    """So many images of each class; every image has colours of its own."""
    number = 0
    for label, count in enumerate(sizes):
        (folder / f"class{label}").mkdir(parents=True)
        for index in range(count):
            number += 1
            color = np.array([number % 256, number // 256, 40 * label], np.uint8)
            Image.fromarray(np.broadcast_to(color, (8, 8, 3))).save(folder / f"class{label}" / f"{index:03}.bmp")
    return folder


def build(root, *, seed=0, splits=None, **settings):
    """Of a folder, or the digits where `root` is None."""
    known: dict[str, Any] = {"name": "imagefolder", "root": str(root), "image_size": 8, "workers": 0}
    known |= {"mean": [0.5], "std": [0.5]}
    if root is None:
        known |= {"name": "digits"}
    chosen, options = DataSettings(**known | settings), {"seed": seed, "device": CPU, "say": list}
    if splits:
        return build_eval_data(chosen, splits=splits, **options)
    return build_data(chosen, AugmentSettings(), **options)


def sizes(loader, classes=0):
    return loader.labels.bincount(minlength=classes).tolist()


def prints(loader):
    """What tells the images of a split apart."""
    return {image.numpy().tobytes() for images, *_ in loader.batches() for image in images}


def note(data, begin):
    (found,) = [line for line in data.notes if line.startswith(begin)]
    return found


# ---- batch size ----


@pytest.mark.parametrize(
    ("images", "fitted"), [(2, 4), (16, 4), (95, 4), (97, 8), (245, 16), (500, 32), (1000, 64), (1293, 64)]
)
def test_a_null_batch_size_is_fitted_to_the_training_images(images, fitted):
    data = build(None, batch_size=None, limit=images)
    assert data.batch_size == data.train.batch_size == data.val.batch_size == data.test.batch_size == fitted
    assert note(data, "batch size") == f"batch size: {fitted}, fitted to {images:,} training images"


def test_the_fitted_batch_size_counts_what_val_limit_and_per_class_leave(tmp_path):
    root = paint(tmp_path, [60, 60])
    assert build(root, batch_size=None).batch_size == 8  # of 108
    assert build(root, batch_size=None, val=0.5).batch_size == 4  # of 60
    assert build(root, batch_size=None, limit=40).batch_size == 4
    assert build(root, batch_size=None, per_class=10).batch_size == 4
    assert "batch size: 4, fitted to 80 training images" in build(root, batch_size=None, folds=3).notes


def test_a_given_batch_size_is_kept_and_scoring_alone_takes_64(tmp_path):
    root = paint(tmp_path, [5, 5])
    given = build(root, batch_size=7)
    assert given.batch_size == given.train.batch_size == 7
    assert not any(line.startswith("batch size") for line in given.notes)
    for home in (root, None):
        assert build(home, batch_size=None, splits=("val", "test")).batch_size == 64


# ---- few-shot subsets ----


def test_per_class_takes_so_many_of_each_class_and_leaves_val_and_test_whole():
    whole, part = build(None), build(None, per_class=10)
    assert sizes(part.train) == [10] * 10
    assert prints(part.train) < prints(whole.train)
    assert prints(part.val) == prints(whole.val)
    assert prints(part.test) == prints(whole.test)
    assert note(part, "train") == "train: 10 of each class, 100 of 1,293 images, seed 0"


def test_a_subset_is_a_function_of_the_seed_and_larger_ones_hold_smaller_ones():
    some = prints(build(None, per_class=5).train)
    assert some == prints(build(None, per_class=5).train) != prints(build(None, per_class=5, seed=1).train)
    assert some < prints(build(None, per_class=6).train)


def test_a_class_with_fewer_images_keeps_all_and_is_counted(tmp_path):
    data = build(paint(tmp_path, [30, 4, 10, 3]), per_class=9)
    assert sizes(data.train) == [9, 3, 9, 2]
    assert note(data, "train: 9") == "train: 9 of each class, 23 of 42 images, seed 0; 2 classes have fewer"
    assert "; 1 class has fewer" in note(build(tmp_path, per_class=3), "train: 3")
    rows = take_per_class(torch.tensor([4, 2, 2, 2, 4]), 9, 0)  # classes without images are none
    assert rows.tolist() == [0, 1, 2, 3, 4]


# ---- folds ----


def test_folds_are_disjoint_cover_all_images_and_differ_by_one_image_per_class(tmp_path):
    root = paint(tmp_path, [5, 13, 7])
    parts = [build(root, folds=5, fold=fold) for fold in range(5)]
    vals = [prints(data.val) for data in parts]
    everything = set.union(*vals)
    assert sum(map(len, vals)) == len(everything) == 25
    for data, val in zip(parts, vals, strict=True):
        assert prints(data.train) == everything - val
        assert sizes(data.val)[0] == 1
        assert sizes(data.val)[1] in (2, 3)
        assert sizes(data.val)[2] in (1, 2)
        assert len(val) == 5
    assert note(parts[3], "val: 5") == "val: 5 of the 25 training images, fold 3 of 0 to 4, stratified, seed 0"


def test_folds_depend_on_the_seed_alone():
    first = build(None, folds=3, fold=1)
    assert prints(first.val) == prints(build(None, folds=3, fold=1, val=0.4, per_class=5, batch_size=3).val)
    assert prints(first.val) != prints(build(None, folds=3, fold=1, seed=1).val)
    assert len(first.val.labels) == 479
    assert prints(first.test) == prints(build(None).test)


def test_folds_of_any_classes_are_even():
    draw = torch.Generator().manual_seed(0)
    for trial in range(50):
        counts = torch.randint(0, 12, (6,), generator=draw)
        labels = torch.arange(6).repeat_interleave(counts)
        folds = 2 + trial % 5
        numbers = fold_numbers(labels, folds, trial)
        for label, count in enumerate(counts.tolist()):
            dealt = numbers[labels == label]
            assert (dealt == -1).all() if count == 1 else (dealt >= 0).all()
            shares = dealt[dealt >= 0].bincount(minlength=folds)
            assert shares.max() - shares.min() <= 1
            assert count < 2 or shares.max() < count  # something of the class is left to train on
        shares = numbers[numbers >= 0].bincount(minlength=folds)
        assert shares.max() - shares.min() <= 1


def test_a_class_of_one_image_stays_in_train_and_one_of_two_is_never_missing_there(tmp_path):
    root = paint(tmp_path, [1, 2, 6])
    for fold in range(4):
        data = build(root, folds=4, fold=fold)
        assert min(sizes(data.train)) >= 1
        assert sizes(data.val)[0] == 0
        assert len(data.val.labels) == 2


def test_a_fold_without_images_is_refused_whichever_is_asked_for(tmp_path):
    root = paint(tmp_path, [2, 2, 1])
    for fold in (0, 4):
        with pytest.raises(DataError, match=r"^data\.folds: 5 folds of 4 images .* leave one empty; choose fewer"):
            build(root, folds=5, fold=fold)
    assert len(build(root, folds=4, fold=3).val.labels) == 1


def test_with_folds_a_val_folder_serves_as_test_where_there_is_none(tmp_path):
    paint(tmp_path / "train", [6, 6])
    paint(tmp_path / "valid", [4, 4])
    plain, data = build(tmp_path), build(tmp_path, folds=3)
    assert note(data, "valid/") == "valid/: test, 8 images, as data.folds takes val from train/"
    assert prints(data.test) == prints(plain.val)
    assert (len(data.train.labels), len(data.val.labels)) == (8, 4)
    assert not any("no test/" in line for line in data.notes)
    assert data.fingerprint == plain.fingerprint


def test_with_folds_a_val_folder_beside_a_test_folder_is_not_used(tmp_path):
    for split, count in (("train", 6), ("val", 4), ("test", 3)):
        paint(tmp_path / split, [count, count])
    plain, data = build(tmp_path), build(tmp_path, folds=3)
    assert note(data, "val/") == "val/: not used, 8 images, as data.folds takes val from train/"
    assert prints(data.test) == prints(plain.test)
    assert prints(data.train) | prints(data.val) == prints(plain.train)


def test_images_elsewhere_without_train_are_scored_as_their_folders_say(tmp_path):
    paint(tmp_path / "val", [4, 4])
    data = build(tmp_path, folds=3, fold=2, splits=("val", "test"))
    assert (len(data.val.labels), data.test) == (8, None)


# ---- hardly any images ----


@pytest.mark.parametrize(
    ("count", "val", "train_sizes", "val_sizes"),
    [
        (5, 0.1, [4, 4, 4], [1, 1, 1]),
        (5, 0.2, [4, 4, 4], [1, 1, 1]),
        (5, 1, [4, 4, 4], [1, 1, 1]),
        (5, 0.9, [1, 1, 1], [4, 4, 4]),
        (2, 0.1, [1, 1, 1], [1, 1, 1]),
        (2, 0.2, [1, 1, 1], [1, 1, 1]),
    ],
)
def test_every_class_is_trained_and_validated_however_few_images_it_has(tmp_path, count, val, train_sizes, val_sizes):
    data = build(paint(tmp_path, [count] * 3), val=val, batch_size=None)
    assert (sizes(data.train), sizes(data.val)) == (train_sizes, val_sizes)
    assert data.batch_size == 4
    assert sum(len(labels) for _, labels, *_ in data.train.batches()) == data.train.images


def test_one_image_of_each_class_cannot_be_split_and_with_a_val_folder_need_not(tmp_path):
    paint(tmp_path / "train", [1, 1, 1])
    for settings in ({"val": 0.2}, {"folds": 2}):
        with pytest.raises(DataError) as caught:
            build(tmp_path, **settings)
        assert "\n" not in str(caught.value)
    paint(tmp_path / "val", [1, 1, 1])
    data = build(tmp_path, batch_size=None)
    assert (sizes(data.train), sizes(data.val)) == ([1, 1, 1], [1, 1, 1])


def test_rare_classes_are_shown_or_weighted_as_much_as_common_ones(tmp_path):
    root = paint(tmp_path, [5, 50])
    data = build(root, batch_size=None, sampling=Sampling.balanced)
    assert (sizes(data.train), sizes(data.val)) == ([4, 45], [1, 5])
    seen = torch.cat([labels for _, labels, *_ in data.train.batches()])
    assert seen.bincount().min() >= 23  # of 49, of which one is left out
    weights = class_weights(LossSettings(class_weights="balanced"), data.train.labels, data.classes)
    torch.testing.assert_close(weights, torch.tensor([49 / 8, 49 / 90]))
