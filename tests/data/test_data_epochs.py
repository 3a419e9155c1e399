"""Epochs of other sizes, balanced ones, the probe, and another size in evaluation."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cnntrain.augment.batch_context import BatchContext
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import DataSettings, Interpolation, LoaderKind, OnBadImage, Sampling
from cnntrain.config.schema.pieces import ResizedCropSettings
from cnntrain.data.build import build_data, resize_batch
from cnntrain.data.decoder import Decoder
from cnntrain.data.loaders import MemoryLoader, StreamLoader
from cnntrain.data.sampler import BatchSampler, balance, shuffle
from cnntrain.data.view import View

CROP = AugmentSettings(resized_crop=ResizedCropSettings())
PLAIN = AugmentSettings()
COUNTS = (12, 5, 20)  # training images of each class of the folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three classes of different sizes, with a val folder."""
    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for split, counts in (("train", COUNTS), ("val", (3, 3, 3))):
        for label, count in enumerate(counts):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                shape = (draw.integers(20, 60), draw.integers(20, 60), 3)
                Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{index:02}.png")
    return root


def build(root, augment=PLAIN, seed=0, probe=0, **settings):
    """The folder, streamed, or with root=None the digits."""
    chosen: dict[str, Any] = {"image_size": 16, "batch_size": 8, "workers": 0}
    if root is None:
        chosen |= {"name": "digits", "root": "nowhere"}
    else:
        chosen |= {"name": "imagefolder", "root": str(root), "mean": [0.5], "std": [0.5], "loader": LoaderKind.stream}
    return build_data(
        DataSettings(**chosen | settings), augment, seed=seed, device=torch.device("cpu"), probe=probe, say=list
    )


def each_kind(root, augment=PLAIN, **settings):
    """The digits, the folder in memory and the folder streamed."""
    in_memory = build(root, augment, loader=LoaderKind.memory, **settings)
    return build(None, augment, **settings), in_memory, build(root, augment, **settings)


def content(loader, epoch=0, start=0):
    batches = [(images.clone(), labels) for images, labels, *_ in loader.batches(epoch, start)]
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


def prints(loader) -> set[bytes]:
    return {image.contiguous().numpy().tobytes() for image in content(loader)[0]}


# ---- other micro-batches, other sizes ----


def test_other_micro_batches_hold_the_same_images_in_the_same_order(root):
    for data in each_kind(root):
        images, labels = content(data.train, 3)
        for batch_size in (1, 7, 50):
            other = data.train.at(batch_size, 16)
            found, known = content(other, 3)
            shared = min(len(found), len(images))  # a remainder of one is left out
            assert torch.equal(found[:shared], images[:shared])
            assert torch.equal(known[:shared], labels[:shared])
            assert [len(x) for x, *_ in other.batches(3)][:-1] == [batch_size] * (len(other) - 1)
        assert data.train.batch_size == 8


def test_what_lies_in_memory_is_decoded_once_and_shared(root, monkeypatch):
    made = []
    every = Decoder.all_images
    monkeypatch.setattr(Decoder, "all_images", lambda self, *args: made.append(1) or every(self, *args))
    train = build(root, loader=LoaderKind.memory).train
    small, large = train.at(3, 8), train.at(30, 12)
    places = {loader._store.content()[0].data_ptr() for loader in (small, train, large)}
    assert len(places) == len(made) == 1
    assert next(small.batches())[0].shape == (3, 3, 16, 16)  # resized on the device


@pytest.mark.parametrize("augment", [PLAIN, CROP], ids=["plain", "resized_crop"])
def test_a_stream_decodes_straight_to_the_size_that_is_asked_for(root, augment):
    train = build(root, augment).train
    for size in (8, 12, 16):
        ready = build(root, augment, image_size=size, batch_size=5).train
        for got, wanted in zip(content(train.at(5, size), 2), content(ready, 2), strict=True):
            assert torch.equal(got, wanted)
    assert content(train)[0].shape[2:] == (16, 16)


def test_smaller_crops_are_cut_from_the_same_boxes(root):
    train = build(root, CROP, batch_size=36).train
    large, small = (content(train.at(36, size), 5)[0].float() for size in (32, 8))
    reduced = torch.nn.functional.avg_pool2d(large, 4)
    shuffled = reduced[torch.randperm(36, generator=torch.Generator().manual_seed(0))]
    assert (reduced - small).abs().mean() < 0.5 * (shuffled - small).abs().mean()


def test_indices_are_those_of_the_images_in_the_batch(root):
    for data in each_kind(root, probe=20):
        for loader in (data.train, data.train.at(5, 16), data.val, data.probe):
            for epoch in (0, 4):
                batches = list(loader.batches(epoch))
                for images, labels, indices, total in batches:
                    assert torch.equal(loader.pick(indices), images)
                    assert torch.equal(loader.labels[indices], labels)
                    assert total == len(indices)
                assert len(batches) == len(loader)


def test_images_picked_from_a_stream_of_random_crops_are_those_of_epoch_0(root):
    train = build(root, CROP).train
    batch = next(train.batches(0))
    assert torch.equal(train.pick(batch.indices), batch.images)


@pytest.mark.parametrize(("resident", "home"), [(True, "meta"), (False, "cpu")])
def test_images_in_memory_lie_on_the_device_or_are_sent_there_batch_by_batch(resident, home):
    images, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    settings = {"batch_size": 2, "device": torch.device("meta"), "seed": 0, "train": False, "resident": resident}
    loader = MemoryLoader(images, labels, **settings)
    assert {part.device.type for part in loader._store.content()} == {home}
    assert {part.device.type for part in next(loader.batches())[:2]} == {"meta"}


def test_batches_from_a_resumed_micro_batch_on_are_the_same(root):
    for data in each_kind(root, CROP):
        loader = data.train.at(5, 12)
        whole = list(loader.batches(2))
        again = build(None if data.name == "digits" else root, CROP, loader=_kind(data.train)).train.at(5, 12)
        for batch, wanted in zip(again.batches(2, 3), whole[3:], strict=True):
            assert all(map(torch.equal, batch[:3], wanted[:3]))
            assert batch.total == wanted.total


def _kind(loader) -> LoaderKind:
    return LoaderKind.memory if isinstance(loader, MemoryLoader) else LoaderKind.stream


def test_the_order_of_an_epoch_is_drawn_apart_from_what_augments_its_batches(root):
    for data in each_kind(root):
        loader, indices = data.train.at(2, 16), torch.arange(2)
        contexts = (
            BatchContext(loader.device, 0, 3, batch, image_size=16, indices=indices) for batch in range(len(loader))
        )
        others = [shuffle(loader.labels, context.generator)[: loader.images] for context in contexts]
        assert not any(torch.equal(loader.sampler.order(3), other) for other in others)


def test_the_order_of_an_epoch_is_drawn_once(root, monkeypatch):
    train, drawn = build(root).train, []
    monkeypatch.setattr(BatchSampler, "_draw", lambda self, epoch: drawn.append(epoch) or torch.arange(37))
    batches = [*train.batches(3), *train.batches(3, 1)]
    assert [len(batch.indices) for batch in batches] == [len(batch.labels) for batch in batches]
    assert drawn == [3]


# ---- balanced epochs ----


def order(labels, epoch) -> torch.Tensor:
    return balance(labels, torch.Generator().manual_seed(epoch))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=100).map(torch.tensor), st.integers(0, 100))
def test_every_class_is_shown_equally_often_and_its_images_as_evenly_as_can_be(labels, epoch):
    turns = order(labels, epoch).bincount(minlength=len(labels))
    assert turns.sum() == len(labels)
    shares = [int(turns[labels == label].sum()) for label in labels.unique()]
    assert max(shares) - min(shares) <= 1
    for label in labels.unique():
        own = turns[labels == label]
        assert own.max() - own.min() <= 1


def test_which_images_get_the_turn_more_changes_from_epoch_to_epoch():
    labels = torch.tensor([0] * 90 + [1] * 10)
    shown = torch.stack([order(labels, epoch).bincount(minlength=100) for epoch in range(200)])
    assert (shown[:, 90:] == 5).all()
    often = shown[:, :90].float().mean(0)  # 50 of 90 in each epoch
    assert (often - 50 / 90).abs().max() < 0.15
    uneven = torch.tensor([0] * 5 + [1] * 6)
    assert {tuple(uneven[order(uneven, epoch)].bincount().tolist()) for epoch in range(20)} == {(5, 6), (6, 5)}


def test_a_balanced_order_is_mixed():
    labels = torch.tensor([0] * 900 + [1] * 100)
    assert ((labels[order(labels, 0)].view(10, 100).float().mean(1) - 0.5).abs() < 0.2).all()


def test_balanced_epochs_have_as_many_images_and_depend_on_seed_and_epoch(root):
    others = each_kind(root, sampling=Sampling.balanced, seed=1)
    for data, other, natural in zip(each_kind(root, sampling=Sampling.balanced), others, each_kind(root), strict=True):
        assert (data.train.images, len(data.train)) == (natural.train.images, len(natural.train))
        images, labels = content(data.train, 1)
        assert torch.equal(images, content(data.train, 1)[0])
        assert not torch.equal(labels, content(data.train, 2)[1])
        assert not torch.equal(labels, content(other.train, 1)[1])
        assert torch.equal(content(data.val)[1], content(natural.val)[1])


def test_a_balanced_folder_shows_each_class_equally_often_and_says_so(root):
    data = build(root, sampling=Sampling.balanced, batch_size=37)
    for epoch in range(3):
        assert sorted(content(data.train, epoch)[1].bincount().tolist()) == [12, 12, 13]
    assert "sampling: balanced, 5 to 20 images per class become 12 or 13 each" in data.notes
    limited = build(root, sampling=Sampling.balanced, limit=12)
    assert content(limited.train)[1].bincount().tolist() == [4, 4, 4]
    assert "sampling: balanced, 2 to 6 images per class become 4 each" in limited.notes
    assert not any("sampling" in note for note in build(root).notes)


# ---- the probe ----


@pytest.mark.parametrize("augment", [PLAIN, CROP], ids=["plain", "resized_crop"])
@pytest.mark.parametrize("settings", [{}, {"sampling": Sampling.balanced}, {"limit": 30}], ids=str)
def test_the_probe_holds_training_images_as_they_are_in_evaluation(root, augment, settings):
    for data in each_kind(root, augment, probe=20, **settings):
        assert (data.probe.images, len(data.probe), len(data.probe.labels)) == (20, 3, 20)
        home = None if data.name == "digits" else root
        plain = build(home, limit=settings.get("limit"))  # its train split is not augmented
        train, val = prints(plain.train.at(1, 16)), prints(plain.val)
        assert prints(data.probe) <= train
        assert len(prints(data.probe)) == 20
        assert not prints(data.probe) & val
        assert torch.equal(content(data.probe)[1], data.probe.labels)
        assert torch.equal(content(data.probe, 0)[0], content(data.probe, 7)[0])
        share = data.train.labels.bincount() * 20 / len(data.train.labels)
        assert (data.probe.labels.bincount() - share).abs().max() < 1
        assert f"probe: 20 of the {len(data.train.labels):,} training images, without augmentation" in data.notes


def test_the_probe_depends_on_the_seed_alone(root):
    assert prints(build(root, probe=10).probe) == prints(build(root, CROP, probe=10, workers=2).probe)
    assert prints(build(None, probe=10).probe) != prints(build(None, probe=10, seed=1).probe)


def test_the_probe_is_a_tenth_of_train_or_100_images_at_most_and_none_where_none_is_wanted(root):
    for data in each_kind(root, probe=5000):
        train = len(data.train.labels)
        assert len(data.probe.labels) == min(train, max(100, train // 10))
    assert build(root).probe is None


def test_the_probe_copies_nothing_that_lies_in_memory(root):
    for data in each_kind(root, probe=10)[:2]:
        assert data.probe._store is data.train._store


def test_the_probe_of_a_stream_decodes_its_own_images_only(root, monkeypatch):
    seen = []
    view = Decoder._view
    monkeypatch.setattr(Decoder, "_view", lambda self, index, *more: seen.append(index) or view(self, index, *more))
    data = build(root, CROP, loader=LoaderKind.auto, probe=10)
    assert (type(data.train), type(data.probe)) == (StreamLoader, MemoryLoader)
    for _ in range(3):
        content(data.probe)
    assert len(seen) == len(set(seen)) == 10


def test_a_bad_image_of_the_probe_is_replaced_by_a_training_image(root, tmp_path):
    import shutil

    shutil.copytree(root, tmp_path / "copy")
    bad = sorted((tmp_path / "copy/train/class1").iterdir())
    for file in bad[:4]:
        file.write_bytes(b"")
    for kind in (LoaderKind.memory, LoaderKind.stream):
        data = build(tmp_path / "copy", CROP, probe=7, loader=kind, on_bad_image=OnBadImage.skip)
        images, labels = content(data.probe)
        good = View(16)(torch.from_numpy(np.array(Image.open(bad[4])))).permute(2, 0, 1)
        assert torch.equal(images[labels == 1][0], good)
        content(data.train)
        assert len(data.train.bad_files) == 4


# ---- another size in evaluation ----


@pytest.mark.parametrize("augment", [PLAIN, CROP], ids=["plain", "resized_crop"])
def test_evaluation_has_its_own_size_and_training_keeps_its(root, augment):
    for data in each_kind(root, augment, eval_size=20, probe=10):
        assert (data.image_size, data.eval_size) == (16, 20)
        for loader in (data.val, data.test, data.probe):
            assert loader is None or content(loader)[0].shape[2:] == (20, 20)
        kept = 18 if augment is CROP and isinstance(data.train, MemoryLoader) and data.name != "digits" else 16
        assert content(data.train)[0].shape[2:] == (kept, kept)
    assert build(root, augment).eval_size == 16


def test_evaluation_images_are_those_of_a_run_at_their_size(root):
    for home in (None, root):
        data, ready = build(home, eval_size=20, probe=10), build(home, image_size=20, probe=10)
        assert torch.equal(content(data.val)[0], content(ready.val)[0])
        assert torch.equal(content(data.probe)[0], content(ready.probe)[0])
    digits = build(None, image_size=8, eval_size=32)
    assert torch.equal(
        content(digits.test)[0], resize_batch(content(build(None, image_size=8).test)[0], 32, Interpolation.bilinear)
    )


def test_statistics_stay_those_of_the_training_size(root, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for home in (root, None):
        found = [build(home, mean=None, std=None, eval_size=size) for size in (None, 24)]
        assert (found[0].mean, found[0].std) == (found[1].mean, found[1].std)
    assert len(list(tmp_path.rglob("*.json"))) == 1


def test_room_in_memory_is_reserved_for_the_size_in_evaluation(root):
    notes = build(root, loader=LoaderKind.memory, eval_size=500, image_size=16).notes
    assert f"val: decoded once, at first use, {9 * 3 * 500**2 / 1e6:.0f} MB in memory" in notes
