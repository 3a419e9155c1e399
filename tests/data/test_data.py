"""Data sets in memory: splits, labels, statistics, and what is said when something is missing."""

import errno
import gzip
import os
import struct
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import fake_mnist

from cnntrain.augment.build import build_normalize
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import DataSettings, Interpolation, LoaderKind
from cnntrain.data import build as build_module
from cnntrain.data import datasets, statistics
from cnntrain.data.build import build_data, build_eval_data, convert_channels, resize_batch
from cnntrain.data.common import Request
from cnntrain.data.split import count_of, stratified_split
from cnntrain.errors import ConfigError, DataError, FileSystemError

CPU = torch.device("cpu")


def build(seed: int = 0, splits=("train", "val", "test"), **settings):
    settings = {"name": "digits", "root": "nowhere"} | settings
    chosen, options = DataSettings(**settings), {"seed": seed, "device": CPU, "splits": splits, "say": list}
    return build_data(chosen, AugmentSettings(), **options)


def build_eval(seed: int = 0, splits=("val", "test"), classes=None, **settings):
    chosen = DataSettings(**{"name": "digits", "root": "nowhere"} | settings)
    return build_eval_data(chosen, seed=seed, device=CPU, splits=splits, classes=classes, say=list)


def content(loader, epoch: int = 0, start: int = 0):
    batches = list(loader.batches(epoch, start))
    return torch.cat([batch.images for batch in batches]), torch.cat([batch.labels for batch in batches])


def prints(loader) -> set[bytes]:
    return {image.numpy().tobytes() for image in content(loader)[0]}


@pytest.fixture(scope="module")
def digits():
    return build(image_size=8)


# ---- splits ----


def test_the_three_splits_of_the_digits_share_no_image(digits):
    parts = [prints(loader) for loader in (digits.train, digits.val, digits.test)]
    assert [len(part) for part in parts] == [1293, 144, 360]
    assert len(set.union(*parts)) == 1797


def test_splits_are_stratified(digits):
    whole = torch.cat([digits.train.labels, digits.val.labels, digits.test.labels]).bincount()
    for loader in (digits.train, digits.val, digits.test):
        share = len(loader.labels) / 1797
        assert (loader.labels.bincount() - whole * share).abs().max() <= 1.5


def test_the_val_part_depends_on_the_seed_and_the_test_part_never_does(digits):
    again, other = build(image_size=8), build(seed=1, image_size=8)
    assert prints(again.val) == prints(digits.val) != prints(other.val)
    assert prints(again.test) == prints(digits.test) == prints(other.test)


def test_val_is_a_count_or_a_fraction_and_never_the_whole():
    assert len(build(val=100).val.labels) == 100
    assert len(build(val=0.5).val.labels) == 718
    with pytest.raises(DataError, match=r"^data\.val: 1437 of 1437 images leave none"):
        build(val=1437)
    with pytest.raises(DataError, match=r"^data\.val: 5000 images are more than the 1437"):
        build(val=5000)


def test_limit_takes_a_stratified_part_of_train_and_leaves_val_and_test_whole(digits):
    limited = build(limit=100, image_size=8)
    assert limited.train.labels.bincount().tolist() == [10] * 10
    assert prints(limited.train) < prints(digits.train)
    assert prints(limited.val) == prints(digits.val)
    assert len(limited.test.labels) == 360
    assert not any("no image of" in note for note in limited.notes)
    assert any(note.endswith("seed 0, no image of 3 classes") for note in build(limit=7).notes)
    assert len(build(limit=0.1).train.labels) == 129
    assert len(build(limit=1.0).train.labels) == 1293
    with pytest.raises(DataError, match=r"^data\.limit: 1294 images are more than the 1293"):
        build(limit=1294)


def test_every_class_of_two_images_is_in_train_and_in_val():
    labels = torch.tensor([0] * 100 + [1] * 2 + [2])
    val, train = stratified_split(labels, 3, 0, leave=True)
    assert sorted(val.tolist() + train.tolist()) == list(range(103))
    assert labels[val].bincount(minlength=3).tolist() == [2, 1, 0]
    assert labels[train].bincount().tolist() == [98, 1, 1]


def test_a_limit_keeps_rare_classes_where_it_can():
    labels = torch.tensor([0] * 1000 + [1] * 3 + [2] * 3)
    assert labels[stratified_split(labels, 10, 0)[0]].bincount().tolist() == [8, 1, 1]
    assert len(stratified_split(labels, 2, 0)[0]) == 2
    assert len(stratified_split(labels, 1006, 0)[0]) == 1006


def test_a_whole_number_is_a_count_and_a_float_a_fraction():
    assert count_of("data.limit", 2, 100) == 2
    assert count_of("data.limit", 1.0, 100) == 100
    assert count_of("data.limit", 0.001, 100) == 1


# ---- order ----


def test_the_order_is_a_function_of_seed_and_epoch(digits):
    first, labels = content(digits.train, 0)
    assert torch.equal(first, content(digits.train, 0)[0])
    assert not torch.equal(first, content(digits.train, 1)[0])
    assert not torch.equal(labels, content(build(seed=1, image_size=8).train, 0)[1])
    assert torch.equal(labels.sort().values[:-1], digits.train.labels.sort().values[:-1])


def test_start_gives_exactly_the_tail_of_the_epoch(digits):
    whole = list(digits.train.batches(3))
    for start in (1, 7, len(whole) - 1, len(whole)):
        tail = list(digits.train.batches(3, start))
        assert len(tail) == len(whole) - start
        for (images, labels, *_), (other, known, *_) in zip(tail, whole[start:], strict=True):
            assert torch.equal(images, other)
            assert torch.equal(labels, known)


def test_the_digits_that_come_with_us_are_scikit_learns():
    from sklearn.datasets import load_digits

    images, labels = datasets.read_digits()
    bunch = load_digits()
    assert np.array_equal(images[:, 0].numpy(), np.rint(bunch.images * (255 / 16)).astype(np.uint8))
    assert np.array_equal(labels.numpy(), bunch.target)
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert "CC BY 4.0" in datasets.DIGITS.with_name("LICENSE.txt").read_text()


def test_labels_follow_their_images_through_the_shuffle(digits):
    known = dict(zip((x.numpy().tobytes() for x in content(digits.val)[0]), content(digits.val)[1], strict=True))
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * 255 / 16).astype(np.uint8)
    truth = {image.tobytes(): label for image, label in zip(images, bunch.target, strict=True)}
    assert all(truth[image] == label for image, label in known.items())
    shuffled, labels = content(digits.train, 5)
    assert all(truth[image.numpy().tobytes()] == label for image, label in zip(shuffled, labels, strict=True))


def test_a_last_micro_batch_of_one_is_left_out_of_train_and_said():
    data = build(batch_size=68)  # 1293 = 19 x 68 + 1
    assert (data.train.images, len(data.train), len(data.train.labels)) == (1292, 19, 1293)
    assert {len(labels) for _, labels, *_ in data.train.batches()} == {68}
    told = "train: 1 image is left out per epoch (for every network: batch norm would fail on a last micro-batch of 1)"
    assert told in data.notes
    assert sum(len(labels) for _, labels, *_ in data.val.batches()) == 144
    assert build(batch_size=1).train.images == 1293


def test_a_micro_batch_may_be_larger_than_the_data():
    data = build(batch_size=5000)
    assert [len(labels) for _, labels, *_ in data.train.batches()] == [1293]


# ---- pixels ----


def test_digits_keep_their_sixteen_levels_and_grow_to_32_pixels(digits):
    assert (digits.image_size, digits.channels) == (8, 1)
    assert content(digits.val)[0].max() == 255
    data = build()
    assert (data.image_size, content(data.val)[0].shape[1:]) == (32, (1, 32, 32))
    assert torch.equal(content(data.val)[0], resize_batch(content(digits.val)[0], 32, Interpolation.bilinear))


def test_channels_convert_by_repetition_and_by_luma():
    data = build(channels=3)
    images = content(data.val)[0]
    assert data.channels == len(data.mean) == len(data.std) == 3
    assert torch.equal(images[:, 0], images[:, 2])
    color = torch.randint(0, 256, (50, 3, 5, 5), dtype=torch.uint8)
    luma = (color.float() * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    assert (convert_channels(color, 1) - luma).abs().max() <= 0.51


def test_normalized_training_images_have_mean_0_and_deviation_1():
    data = build()
    images = build_normalize(data.mean, data.std, False)(content(data.train)[0])
    assert abs(images.mean()) < 0.02
    assert abs(images.std() - 1) < 0.02


def test_statistics_are_those_of_the_training_images_alone():
    data = build(val=0.5, limit=100)
    whole = build(val=0.5)
    assert (data.mean, data.std) == (whole.mean, whole.std) == statistics.compute(content(whole.train)[0])
    assert data.mean != build(val=0.5, seed=1).mean


@pytest.mark.parametrize(("name", "sizes"), [("digits", [144, 360, 1293]), ("mnist", [10, 20, 50])])
def test_each_image_is_resized_once(tmp_path, monkeypatch, name, sizes):
    if name == "mnist":
        fake_mnist(tmp_path)
    resized = []
    monkeypatch.setattr(build_module, "resize_batch", lambda images, *_: resized.append(len(images)) or images)
    build(name=name, root=str(tmp_path), val=sizes[0])
    assert sorted(resized) == sizes


def test_computed_statistics_equal_the_definition():
    images = torch.randint(0, 256, (20, 3, 7, 7), dtype=torch.uint8)
    mean, std = statistics.compute(images)
    values = images.double() / 255
    assert torch.allclose(torch.tensor(mean).double(), values.mean((0, 2, 3)))
    assert torch.allclose(torch.tensor(std).double(), values.std((0, 2, 3), correction=0))
    assert statistics.compute(torch.full((2, 1, 4, 4), 51, dtype=torch.uint8)) == ([pytest.approx(0.2)], [1 / 255])


@pytest.mark.parametrize("text", ['{"mean": [NaN], "std": [0.5]}', '{"mean": [0.5], "std": [Infinity]}', "[" * 10**5])
def test_kept_statistics_that_no_images_have_are_not_read(tmp_path, text):
    file = tmp_path / "kept.json"
    statistics.save(file, ([0.5], [0.25]))
    assert statistics.load(file, 1) == ([0.5], [0.25])
    file.write_text(text)
    assert statistics.load(file, 1) is None


def test_given_statistics_are_taken_and_must_fit_the_channels():
    data = build(mean=[0.5], std=[0.2], channels=3)
    assert (data.mean, data.std) == ([0.5] * 3, [0.2] * 3)
    with pytest.raises(ConfigError, match=r"^data\.std: 3 numbers for 1 channel"):
        build(std=[0.1, 0.2, 0.3])


def test_the_fingerprint_is_that_of_the_pixels_and_not_of_the_settings(digits):
    assert digits.fingerprint == build_eval(seed=4, splits=("test",)).fingerprint
    assert len(digits.fingerprint) == 64
    changed = datasets.digits(Request(DataSettings("digits"), AugmentSettings(), 0, CPU, None, (), 0, print))
    changed.train[0][0, 0, 0, 0] += 1
    assert changed.fingerprint() != digits.fingerprint


# ---- requests that do not fit ----


def test_labels_are_aligned_to_the_names_of_a_checkpoint(digits):
    names = ["none", *reversed(digits.classes)]
    data = build_eval(image_size=8, classes=names)
    assert data.classes == names
    assert torch.equal(data.test.labels, 10 - digits.test.labels)
    with pytest.raises(DataError, match=r"class '9' is not among the 9 classes"):
        build_eval(classes=digits.classes[:9])


def test_only_the_splits_that_are_asked_for_are_made(digits):
    data = build_eval(splits=("val",), image_size=8)
    assert list(data.scored_splits) == ["val"]
    assert prints(data.val) == prints(digits.val)


def test_a_data_set_in_memory_cannot_be_streamed():
    with pytest.raises(ConfigError, match=r"^data\.loader: stream .* digits .*; use auto or memory"):
        build(loader=LoaderKind.stream)


def test_an_unknown_name_is_a_config_error_that_lists_the_known():
    with pytest.raises(
        ConfigError,
        match=r"^data\.name: must be one of digits, mnist, .* \(given cifar\); did you mean cifar10\?",
    ):
        build(name="cifar")


# ---- torchvision's data sets ----


def test_mnist_is_read_whole_and_split(tmp_path):
    fake_mnist(tmp_path)
    data = build(name="mnist", root=str(tmp_path), val=10)
    assert (data.train.images, data.val.images, data.test.images) == (50, 10, 20)
    assert (data.mean, data.std) == ([0.1307], [0.3081])
    assert data.classes == [str(digit) for digit in range(10)]


def test_a_pipe_among_the_files_of_a_data_set_is_not_waited_for(tmp_path):
    file = fake_mnist(tmp_path) / "t10k-labels-idx1-ubyte"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match=rf"^data.root: {file} is a pipe or device, not a file; delete"):
        build(name="mnist", root=str(tmp_path))


@pytest.mark.parametrize(("name", "home"), [("mnist", "MNIST/raw"), ("cifar10", "cifar-10-batches-py")])
def test_a_data_set_that_is_absent_says_what_where_and_what_to_do(tmp_path, name, home):
    with pytest.raises(DataError) as caught:
        build(name=name, root=str(tmp_path))
    line = str(caught.value)
    assert line.startswith(f"data.root: {name} is not in {tmp_path} (no {home}/ there); set data.download=true")
    assert "\n" not in line


@pytest.mark.parametrize("download", [False, True])
def test_a_root_inside_the_data_set_is_sent_to_the_folder_above(tmp_path, monkeypatch, download):
    fake_mnist(tmp_path)
    (tmp_path / "cifar-10-batches-py").mkdir()
    monkeypatch.chdir(tmp_path / "MNIST")
    places = [
        (".", "mnist"),
        ("raw", "mnist"),
        (tmp_path / "MNIST/raw", "mnist"),
        ("../cifar-10-batches-py", "cifar10"),
    ]
    for root, name in places:
        with pytest.raises(DataError, match=rf"^data\.root: .* did you mean data\.root={tmp_path}\?$") as caught:
            build(name=name, root=str(root), download=download)
        assert "data.download" not in str(caught.value)


def test_a_download_without_network_is_one_line(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise urllib.error.URLError(OSError(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    for name in ("mnist", "cifar10"):
        with pytest.raises(DataError) as caught:
            build(name=name, root=str(tmp_path), download=True)
        line = str(caught.value)
        assert line.startswith(f"data.download: {name} could not be fetched to {tmp_path} (")
        assert "\n" not in line
        assert line.count(";") >= 1


def test_a_download_to_a_place_that_cannot_be_written_is_a_file_system_error(tmp_path, monkeypatch):
    for fault in (PermissionError(errno.EACCES, "Permission denied"), OSError(errno.ENOSPC, "No space left")):

        def refuse(*args, fault=fault, **kwargs):
            raise fault

        monkeypatch.setattr("os.makedirs", refuse)
        with pytest.raises(FileSystemError, match=rf"^data\.root: .* cannot be written \({fault.strerror}\); choose"):
            build(name="mnist", root=str(tmp_path / "closed"), download=True)


def test_a_download_to_a_path_that_cannot_be_made_is_a_file_system_error(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        for name in ("mnist", "cifar10"):
            with pytest.raises(FileSystemError, match=r"^data\.root: .* cannot be written \(.*\); choose"):
                build(name=name, root=str(root), download=True)


def test_a_download_makes_the_folder_that_is_missing(tmp_path, monkeypatch):
    import torchvision.datasets

    seen = []
    kind = torchvision.datasets.MNIST
    root = tmp_path / "not" / "there"
    monkeypatch.setattr(kind, "download", lambda self: seen.append(Path(self.root).is_dir()) or fake_mnist(root))
    assert build(name="mnist", root=str(root), download=True, val=10).train.images == 50
    assert seen == [True]


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_mnist_file_is_named(tmp_path, file):
    folder = fake_mnist(tmp_path)
    whole = (folder / file).read_bytes()
    for damaged, reason in (
        (whole[:-7], f"expected {len(whole)} bytes, found {len(whole) - 7}"),
        (whole[:3], "its header is not that of MNIST"),
        (gzip.compress(whole)[:50], "its header is not that of MNIST"),
        (whole[:4] + struct.pack(">i", 9) + whole[8:], "expected .* bytes, found .*"),
    ):
        (folder / file).write_bytes(damaged)
        with pytest.raises(DataError, match=f"{file}: {reason}; delete .* data.download=true"):
            build(name="mnist", root=str(tmp_path))
    (folder / file).unlink()
    with pytest.raises(DataError, match=f"{file}: a file of mnist is missing"):
        build(name="mnist", root=str(tmp_path))


def test_a_label_beyond_the_classes_is_found_before_training(tmp_path):
    folder = fake_mnist(tmp_path)
    file = folder / "train-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + b"\x0a")
    with pytest.raises(DataError, match=r"mnist has a label that is not in 0\.\.9"):
        build(name="mnist", root=str(tmp_path))


def test_a_damaged_cifar_file_is_named(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"half a download")
    with pytest.raises(DataError, match=r"data_batch_1: damaged, its MD5 is not that of cifar10; delete "):
        build(name="cifar10", root=str(tmp_path))
