"""Memory and stream: the same images, whatever the number of threads, and bad files by name."""

import io
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import DataSettings, LoaderKind, OnBadImage, Sampling
from cnntrain.config.schema.pieces import ResizedCropSettings
from cnntrain.data import build_files, common, loaders
from cnntrain.data.build import build_data
from cnntrain.data.common import Request
from cnntrain.data.datasets import digits
from cnntrain.data.decode import read_image
from cnntrain.data.loaders import MemoryLoader, ahead
from cnntrain.data.view import RandomView, View
from cnntrain.errors import ConfigError, DataError
from cnntrain.runtime.world import World

CROP = AugmentSettings(resized_crop=ResizedCropSettings())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three classes of twelve noisy pictures of many sizes and kinds, with a val folder."""
    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for label in range(3):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                shape = (draw.integers(20, 60), draw.integers(20, 60), 3)
                image = Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8))
                image.save(folder / f"{index:02}.{('jpg', 'png', 'bmp')[index % 3]}")
    return root


@pytest.fixture
def damaged(root, tmp_path):
    """The same folder with two bad files in class1 of train."""
    import shutil

    copy = tmp_path / "damaged"
    shutil.copytree(root, copy)
    (copy / "train/class1/03.jpg").write_bytes((root / "train/class1/03.jpg").read_bytes()[:300])
    (copy / "train/class1/04.png").write_bytes(b"")
    return copy


def build(root, augment=AugmentSettings(), seed=0, **settings):  # noqa: B008
    known: dict[str, Any] = {
        "name": "imagefolder",
        "root": str(root),
        "image_size": 16,
        "batch_size": 8,
        "mean": [0.5],
        "std": [0.5],
        "loader": LoaderKind.stream,
    }
    return build_data(DataSettings(**known | settings), augment, seed=seed, device=torch.device("cpu"), say=list)


def content(loader, epoch=0, start=0):
    return [(images.clone(), labels) for images, labels, *_ in loader.batches(epoch, start)]


def same(first, second) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(first, second, strict=True)
    )


def decode_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


# ---- the same images from every road ----


@pytest.mark.parametrize("loader", [LoaderKind.stream, LoaderKind.memory], ids=["stream", "memory"])
def test_each_image_has_the_name_of_its_file(root, loader):
    data = build(root, loader=loader, val=0.25)
    probe = build_data(
        DataSettings(name="imagefolder", root=str(root), image_size=16, mean=[0.5], std=[0.5], loader=loader),
        AugmentSettings(),
        seed=0,
        device=torch.device("cpu"),
        probe=5,
        say=list,
    ).probe
    for part in (data.train, data.val, probe):
        for index, image in enumerate(part.pick(torch.arange(len(part.labels)))):
            file = Path(part.name(index))
            assert torch.equal(image, View(16)(read_image(file, 3)).permute(2, 0, 1))
            assert file.parent.name == data.classes[part.labels[index]]


def test_images_that_come_from_no_file_are_named_by_their_place_in_the_data():
    settings = DataSettings(name="digits", image_size=8, val=0.1)
    data = build_data(settings, AugmentSettings(), seed=0, device=torch.device("cpu"), say=list)
    block = digits(Request(settings, AugmentSettings(), 0, torch.device("cpu"), None, (), 0, list))
    for part, whole in ((data.train, "train"), (data.val, "train"), (data.test, "test")):
        images, labels = getattr(block, whole)
        for index in (0, 1, len(part.labels) - 1):
            split, _, number = part.name(index).partition("/")
            assert split == whole
            assert torch.equal(part.pick(torch.tensor([index]))[0], images[int(number)])
            assert part.labels[index] == labels[int(number)]


@pytest.mark.parametrize("augment", [AugmentSettings(), CROP], ids=["plain", "resized_crop"])
def test_batches_do_not_depend_on_the_number_of_threads(root, augment):
    reference = content(build(root, augment, workers=0).train, epoch=2)
    assert [len(labels) for _, labels in reference] == [8, 8, 8, 8, 4]
    for workers in (1, 3, 16):
        assert same(content(build(root, augment, workers=workers).train, epoch=2), reference)


def test_start_gives_exactly_the_tail_of_the_streamed_epoch(root):
    loader = build(root, CROP, workers=2).train
    whole = content(loader, 4)
    for start in (1, 4, 5):
        assert same(content(loader, 4, start), whole[start:])


def test_order_and_crops_differ_by_epoch_and_by_seed(root):
    data = build(root, CROP, workers=0)
    first = content(data.train, 0)
    assert same(first, content(data.train, 0))
    assert not same(first, content(data.train, 1))
    assert not same(first, content(build(root, CROP, seed=1, workers=0).train, 0))


def test_each_image_has_a_crop_of_its_own_in_each_epoch(root):
    data = build(root, CROP, batch_size=36, workers=0)
    seen = {image.numpy().tobytes() for epoch in range(5) for image in content(data.train, epoch)[0][0]}
    assert len(seen) == 5 * 36


def test_memory_and_stream_give_the_same_images(root):
    stream, memory = build(root, workers=2), build(root, loader=LoaderKind.memory, workers=2)
    for split in ("train", "val"):
        assert same(content(getattr(stream, split), 1), content(getattr(memory, split), 1))


def test_validation_images_are_torchvisions_resize_and_centre_crop(root):
    images = content(build(root, image_size=28, workers=0).val)[0][0]
    files = sorted((root / "val").rglob("*.*"))
    for file, image in zip(files, images, strict=False):
        planes = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
        expected = reference.center_crop(reference.resize(planes, [32], antialias=True), [28, 28])
        assert (image.int() - expected.int()).abs().max() <= 1


def test_labels_belong_to_their_images(root):
    data = build(root, workers=3)
    val = {
        image.numpy().tobytes(): int(label)
        for images, labels, *_ in data.val.batches()
        for image, label in zip(images, labels, strict=True)
    }
    view = View(16)
    for label in range(3):
        for file in (root / "val" / f"class{label}").iterdir():
            pixels = torch.from_numpy(np.array(Image.open(file)))
            assert val[view(pixels).permute(2, 0, 1).contiguous().numpy().tobytes()] == label


def test_the_loader_says_whether_it_cuts_the_crops(root):
    assert build(root, CROP).train.crops
    assert not build(root).train.crops
    assert not build(root, CROP).val.crops
    kept = build(root, CROP, loader=LoaderKind.memory)
    assert not kept.train.crops
    assert content(kept.train)[0][0].shape[2:] == (18, 18)  # 16 / 0.875: room for crops on the device
    assert content(kept.val)[0][0].shape[2:] == (16, 16)


@pytest.mark.parametrize("loader", [LoaderKind.stream, LoaderKind.memory])
@pytest.mark.parametrize("sampling", list(Sampling))
def test_in_order_shows_each_training_image_once_as_its_label_stands(root, loader, sampling):
    train = build(root, loader=loader, sampling=sampling, batch_size=7, workers=0, limit=29).train
    assert train.images == 28  # a micro-batch of one image is left out
    before = content(train, 1)
    ordered = train.in_order()
    batches = content(ordered, 3)
    assert (ordered.images, len(ordered), ordered.batch_size) == (29, 5, 7)
    assert torch.equal(torch.cat([labels for _, labels in batches]), train.labels)
    assert torch.equal(torch.cat([images for images, _ in batches]), train.pick(torch.arange(29)))
    groups = torch.arange(29).split(10)[1:]
    assert same(content(train.in_order(10), 0, 1), [(train.pick(rows), train.labels[rows]) for rows in groups])
    assert same(content(train, 1), before)


# ---- the order, whatever the settings ----


@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=60).map(torch.tensor),
    sampling=st.sampled_from(Sampling),
    batch_size=st.integers(1, 20),
    processes=st.integers(1, 4),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 10**6),
    used=st.lists(st.integers(0, 3), max_size=3),
)
def test_an_epoch_depends_on_seed_and_epoch_alone_however_it_is_shared_or_gone_on_with(
    labels, sampling, batch_size, processes, seed, epoch, used
):
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)

    def loader(batch_size, rank=0, processes=1):
        chosen = {"device": torch.device("cpu"), "seed": seed, "train": True, "sampling": sampling, "resident": True}
        return MemoryLoader(images, labels, batch_size=batch_size, world=World(rank, processes), **chosen)

    order = loader(len(labels)).sampler.order(epoch)
    shared = [loader(batch_size, rank, processes) for rank in range(processes)]
    for one in shared:
        for other in used:  # epochs that this process has shown before
            one.sampler.order(other)
    count = len(shared[0])
    parts = list(zip(*([batch.indices for batch in one.batches(epoch)] for one in shared), strict=True))
    joined = torch.cat([torch.cat(part) for part in parts]) if parts else order[:0]
    assert joined.equal(order[: shared[0].images])
    assert all(max(map(len, part)) - min(map(len, part)) <= 1 for part in parts)
    if sampling is Sampling.natural:
        assert sorted(order.tolist()) == list(range(len(labels)))
    for start in {0, count // 2, max(0, count - 1)}:
        for rank, one in enumerate(shared):
            batches = list(one.batches(epoch, start))
            assert len(batches) == count - start
            for (pixels, classes, _, total), part in zip(batches, parts[start:], strict=True):
                assert pixels.flatten().equal(part[rank].to(torch.uint8))
                assert classes.equal(labels[part[rank]])
                assert total == sum(map(len, part))


# ---- which road ----


def test_auto_decodes_small_folders_once_and_streams_where_crops_are_random(root):
    data = build(root, loader=LoaderKind.auto)
    assert {type(data.train).__name__, type(data.val).__name__} == {"MemoryLoader"}
    data = build(root, CROP, loader=LoaderKind.auto)
    assert (type(data.train).__name__, type(data.val).__name__) == ("StreamLoader", "MemoryLoader")


def test_auto_streams_what_does_not_fit(root, monkeypatch):
    val_bytes = 12 * 3 * 16 * 16
    monkeypatch.setattr(common, "free_memory", lambda device: val_bytes * common.SHARE)
    data = build(root, loader=LoaderKind.auto)
    assert (type(data.train).__name__, type(data.val).__name__) == ("StreamLoader", "MemoryLoader")
    monkeypatch.setattr(common, "free_memory", lambda device: 0)
    assert type(build(root, loader=LoaderKind.memory).val).__name__ == "MemoryLoader"
    monkeypatch.setattr(build_files, "free_memory", lambda device: 100)
    with pytest.raises(ConfigError, match=r"^data\.loader: memory needs .* for train, more than is free; use stream"):
        build(root, loader=LoaderKind.memory)


@pytest.mark.parametrize(("kind", "places"), [("cpu", ["device", None]), ("mps", ["device", None])])
def test_memory_that_device_and_host_share_is_given_once(monkeypatch, kind, places):
    monkeypatch.setattr(common, "free_memory", lambda device: 100 * common.SHARE)
    room = common.MemoryBudget(torch.device(kind))
    assert [room.take(60), room.take(60)] == places


def test_memory_of_the_device_is_used_before_that_of_the_host(monkeypatch):
    monkeypatch.setattr(common, "free_memory", lambda device: 100 * common.SHARE)
    room = common.MemoryBudget(torch.device("cuda"))
    assert [room.take(60), room.take(60), room.take(60)] == ["device", "host", None]


# ---- threads ----


def test_an_iterator_that_is_closed_early_leaves_no_thread(root):
    loader = build(root, CROP, workers=3).train
    batches = loader.batches()
    next(batches)
    assert decode_threads()
    batches.close()
    assert not decode_threads()
    for _ in loader.batches():
        pass
    assert not decode_threads()


def test_decode_threads_leave_torchs_own_threads_alone(root):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        content(build(root, workers=2).train)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ---- bad files ----


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("loader", [LoaderKind.stream, LoaderKind.memory])
def test_a_bad_image_stops_the_run_with_its_name(damaged, workers, loader):
    train = build(damaged, loader=loader, workers=workers).train
    with pytest.raises(DataError, match=r"train/class1/0[34]\.(jpg|png): .*; mend or remove .*on_bad_image=skip"):
        content(train)
    assert not decode_threads()


def test_a_skipped_image_is_replaced_by_the_next_good_one_of_its_class(damaged, root):
    skipping = build(damaged, on_bad_image=OnBadImage.skip, workers=0)
    result = content(skipping.train)
    good = content(build(root, workers=0).train)
    files = {image.numpy().tobytes(): place for place, image in enumerate(_in_file_order(root))}
    for (images, labels), (expected, known) in zip(result, good, strict=True):
        assert torch.equal(labels, known)
        for image, original in zip(images, expected, strict=True):
            place = files[original.contiguous().numpy().tobytes()]
            wanted = 17 if place in (15, 16) else place  # the two bad files are 15 and 16, the next good one is 17
            assert files[image.contiguous().numpy().tobytes()] == wanted
    reasons = dict(skipping.train.bad_files)
    assert [path.rsplit("train/")[1] for path in reasons] == ["class1/03.jpg", "class1/04.png"]
    assert "the file is empty" in reasons.popitem()[1]


def _in_file_order(root):
    view = View(16)
    for file in sorted((root / "train").rglob("*.*")):
        yield view(torch.from_numpy(np.array(Image.open(file)))).permute(2, 0, 1).contiguous()


@pytest.mark.parametrize("augment", [AugmentSettings(), CROP], ids=["plain", "resized_crop"])
def test_skipping_does_not_depend_on_threads_or_epochs_before(damaged, augment):
    options = {"on_bad_image": OnBadImage.skip}
    first = content(build(damaged, augment, workers=0, **options).train, 3)
    used = build(damaged, augment, workers=3, **options).train
    content(used, 2)
    assert same(content(used, 3), first)
    assert len(used.bad_files) == 2


def test_memory_skips_as_the_stream_does(damaged):
    options = {"on_bad_image": OnBadImage.skip}
    memory = build(damaged, loader=LoaderKind.memory, **options)
    assert same(content(memory.train), content(build(damaged, **options).train))
    assert len(memory.train.bad_files) == 2


def test_a_class_without_a_good_image_is_an_error(damaged):
    for file in (damaged / "train/class1").iterdir():
        file.write_bytes(b"")
    for file in list((damaged / "train/class1").iterdir())[9:]:
        file.unlink()
    with pytest.raises(
        DataError, match=r"class1/.*: none of the images of its class in its split \(\d+\) can be decoded"
    ):
        content(build(damaged, on_bad_image=OnBadImage.skip, workers=0).train)


def test_too_many_bad_images_are_an_error(damaged):
    for file in list((damaged / "train").rglob("*.*"))[:11]:
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"^data\.on_bad_image: more than 10 bad images .*; mend the files"):
        content(build(damaged, on_bad_image=OnBadImage.skip, workers=2).train)


# ---- views ----


def test_random_views_are_spread_as_torchvisions():
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    settings = ResizedCropSettings()
    theirs = [RandomResizedCrop.get_params(torch.zeros(1, 60, 90), settings.scale, settings.ratio) for _ in range(3000)]
    view, draw = RandomView(16, settings), random.Random(0)
    mine = [view.box(60, 90, draw) for _ in range(3000)]
    for quantile in (0.1, 0.5, 0.9):
        assert np.abs(np.quantile(mine, quantile, 0) - np.quantile(theirs, quantile, 0)).max() <= 2.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 7), (16, 16), (18, 18)])
def test_every_shape_becomes_a_square(shape):
    pixels = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)
    assert View(16)(pixels).shape == (16, 16, 3)
    assert RandomView(16, ResizedCropSettings())(pixels, random.Random(0)).shape == (16, 16, 3)


def test_a_phone_photo_lies_the_right_way_in_the_batch(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright: stored with its top to the left
    for label in ("a", "b"):
        (tmp_path / "train" / label).mkdir(parents=True)
        upright = Image.new("L", (24, 32), 0)
        upright.paste(255, (0, 0, 24, 16))
        file = io.BytesIO()
        upright.transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", exif=exif)
        for index in range(3):
            (tmp_path / "train" / label / f"{index}.jpg").write_bytes(file.getvalue())
    image = content(build(tmp_path, workers=0).val)[0][0][0].float()
    assert image[:, :6].mean() > 240
    assert image[:, -6:].mean() < 15


# ---- from host memory to a device ----


@pytest.fixture
def by_transfer(monkeypatch):
    """Transfers as to a GPU, from buffers that are not page-locked."""
    monkeypatch.setattr(loaders, "can_pin", lambda device: True)
    empty = torch.empty

    def unlocked(*args, **kwargs):
        assert threading.current_thread() is threading.main_thread()  # another would allocate for another device
        return empty(*args, **kwargs | {"pin_memory": False})

    monkeypatch.setattr(torch, "empty", unlocked)


def small_loader(count=50, train=True, **arguments):
    images = torch.arange(count * 12).view(count, 3, 2, 2).to(torch.uint8)
    options = {"batch_size": 8, "device": torch.device("cpu"), "seed": 1, "resident": False}
    return MemoryLoader(images, torch.arange(count) % 7, train=train, **options | arguments)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("world", [World(), World(1, 2)])
def test_batches_that_are_gathered_ahead_are_the_same_in_the_same_order(train, world, request):
    loader = small_loader(train=train, world=world)
    part = loader.subset(torch.arange(49, 0, -2))
    expected = [list(one.batches(2, start)) for one in (loader, part) for start in (0, 1)]
    request.getfixturevalue("by_transfer")
    found = [list(one.batches(2, start)) for one in (loader, part) for start in (0, 1)]
    for before, after in zip(expected, found, strict=True):
        assert len(before) == len(after) > 0
        for one, other in zip(before, after, strict=True):
            assert all(torch.equal(mine, yours) for mine, yours in zip(one[:3], other[:3], strict=True))
            assert one.total == other.total
    assert torch.equal(loader.pick(torch.tensor([4, 4, 2])), small_loader().pick(torch.tensor([4, 4, 2])))


def test_one_batch_is_gathered_ahead_and_none_after_the_end(by_transfer, monkeypatch):
    filled, fill = [], loaders._fill
    monkeypatch.setattr(loaders, "_fill", lambda *args: filled.append(threading.current_thread().name) or fill(*args))
    before = threading.active_count()
    batches = small_loader(count=80).batches()
    for number in range(1, 4):
        next(batches)
        assert number <= len(filled) <= number + 1
    batches.close()
    assert threading.active_count() == before
    assert len(filled) <= 4
    assert {name.partition("_")[0] for name in filled} == {"ahead"}


def test_a_fault_while_a_batch_is_gathered_comes_out_at_that_batch(by_transfer):
    answers = ahead(iter([lambda: 1, lambda: 1 // 0, lambda: 3]))
    assert next(answers) == 1
    with pytest.raises(ZeroDivisionError):
        next(answers)
