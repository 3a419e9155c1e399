"""A data set of the user's by its dotted name: what its items may be, and that they are read when they are wanted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

import cnntrain
from cnntrain import cli
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.data import DataSettings, LoaderKind, OnBadImage
from cnntrain.data import user_data, user_items, user_labels
from cnntrain.data.build import build_data
from cnntrain.data.common import TrainData
from cnntrain.data.datasets import TensorSet
from cnntrain.data.loaders import MemoryLoader, StreamLoader
from cnntrain.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures("here")
given: dict[str, Any] = {}  # what the functions below give, and how often items were asked for


class Pictures:
    """Items of random pixels, the same each time; `form` makes an image of uint8 (H, W, 3)."""

    def __init__(self, count: int = 40, form: Callable[[np.ndarray], Any] = Image.fromarray, sizes: int = 1) -> None:
        self.count, self.form, self.sizes = count, form, sizes
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        self.asked.append(index)
        pixels = np.random.default_rng(index).integers(0, 256, (12, 12 + index % self.sizes, 3), dtype=np.uint8)
        return self.form(pixels), index % 2


class Told(Pictures):
    """The same, which says its labels and the names of its classes."""

    classes = ("cat", "dog")

    @property
    def targets(self) -> list[int]:
        return [index % 2 for index in range(self.count)]


class Broken(Told):
    """The same, of which item 50 fails."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if index == 50:
            raise OSError("no such shard")
        return super().__getitem__(index)


def whole() -> Any:
    """A function that says nothing of splits."""
    given["calls"] = given.get("calls", 0) + 1
    return given["data"]


def by_part(split: str) -> Any:
    """A function that is asked for each split, as those of torchvision are."""
    return given["data"][split]


def build(data: Any, function: str = "whole", **settings: Any) -> TrainData:
    given.update(data=data, calls=0)
    chosen = DataSettings(**{"name": f"{__name__}:{function}", "root": "."} | settings)
    return build_data(chosen, AugmentSettings(), seed=0, device=torch.device("cpu"), say=lambda line: None)


def pixels(loader: Any) -> list[tuple[Any, Any]]:
    return [(images.tolist(), labels.tolist()) for images, labels, *_ in loader.batches()]


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every data set is too large to be read as a block."""
    monkeypatch.setattr(user_data, "BLOCK", 0)


def _read_only(image: np.ndarray) -> np.ndarray:
    image = image.copy()
    image.flags.writeable = False
    return image


@pytest.mark.parametrize(
    "form",
    [
        _read_only,
        lambda image: image.transpose(2, 0, 1),
        lambda image: image[:, ::-1][:, ::-1],
        lambda image: np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]),
        lambda image: torch.from_numpy(image).permute(2, 0, 1),
        lambda image: torch.from_numpy(image).permute(2, 0, 1).float() / 255,  # what ToTensor gives
        lambda image: image.astype(np.float64) / 255,
    ],
    ids=["array", "C H W", "flipped", "transparent", "tensor", "float tensor", "float array"],
)
def test_an_image_of_any_kind_gives_the_pixels_that_pillow_has(form: Callable[[np.ndarray], Any]) -> None:
    assert build(Pictures(form=form)).fingerprint == build(Pictures()).fingerprint


@pytest.mark.parametrize(
    "form",
    [
        lambda image: image[:, :, 0],
        lambda image: image[:, :, :1],
        lambda image: torch.from_numpy(image)[:, :, 0],
        lambda image: torch.from_numpy(image)[None, :, :, 0] / 255,
    ],
    ids=["H W", "H W 1", "tensor", "float tensor"],
)
def test_grey_images_of_any_kind_have_one_channel(form: Callable[[np.ndarray], Any]) -> None:
    data = build(Pictures(form=form))
    assert (data.channels, data.image_size) == (1, 12)
    assert data.fingerprint == build(Pictures(form=lambda image: Image.fromarray(image[:, :, 0]))).fingerprint


@pytest.mark.parametrize(
    ("image", "label", "text"),
    [
        (None, 0, "gives NoneType for item 3 of train; let an image be a Pillow image, a uint8 array (H, W, C) or"),
        (np.zeros((8, 8), np.int64), 0, "gives a int64 array (8, 8) for item 3 of train; let an image be"),
        (np.zeros((2, 8, 8), np.uint8), 0, "gives a uint8 array (2, 8, 8) for item 3 of train; let an image be"),
        (torch.zeros(8, 8, 3), 0, "gives a float32 tensor (8, 8, 3) for item 3 of train; let an image be"),
        (
            torch.full((3, 8, 8), -2.0),
            0,
            "gives floats from -2 to -2 for item 3 of train; let them be 0..1: leave Norm",
        ),
        (torch.full((3, 8, 8), torch.nan), 0, "gives floats from nan to nan for item 3 of train; let them be 0..1"),
        (torch.zeros(3, 8, 8), "cat", "gives label 'cat' (str) for item 3 of train; give each image one whole number"),
        (
            torch.zeros(3, 8, 8),
            10**30,
            "gives label 1000000000000000000000000000000 (int) for item 3 of train; give each",
        ),
        (torch.zeros(3, 8, 8), 7, "gives label 7 for item 3 of train, not one of 0..5; count the classes from 0"),
        (torch.zeros(3, 8, 8), -1, "gives label -1 for item 3 of train, not one of 0..1; count the classes from 0"),
    ],
)
def test_an_item_that_is_something_else_is_told_with_its_number(image: Any, label: Any, text: str) -> None:
    items = [(torch.zeros(3, 8, 8), index % 2) for index in range(6)]
    items[3] = image, label
    with pytest.raises(ConfigError) as fault:
        build(items)
    assert str(fault.value).startswith(f"data.name: {__name__}:whole {text}")
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ([1, 2], "gives int for item 0 of train; let it be a pair (image, label)"),
        ([], "has no item for train; give it some"),
        (iter([]), "gave list_iterator back; return pairs (image, label) that have a length"),
        ({"training": [], "exam": []}, "gave a dict of training, exam back; let its keys be train, and val and test"),
        ({"test": []}, "gave a dict of test back; let its keys be train"),
    ],
)
def test_what_is_no_data_set_is_told(data: Any, text: str) -> None:
    with pytest.raises(ConfigError) as fault:
        build(data)
    assert str(fault.value).startswith(f"data.name: {__name__}:whole {text}")


def test_a_block_is_known_by_all_its_pixels_as_it_was_before_items_were_read_one_by_one() -> None:
    """A run of an older version goes on."""
    images = torch.stack([torch.from_numpy(np.array(Pictures()[index][0])).permute(2, 0, 1) for index in range(40)])
    assert build(Pictures()).fingerprint == TensorSet([], (images, torch.arange(40) % 2), None).fingerprint()


def test_a_function_that_says_nothing_of_splits_gives_train_alone() -> None:
    """Called twice, it would give the training images for a test, too."""
    data = build(Told(), val=0.25)
    assert given["calls"] == 1
    assert (data.train.images, data.val and data.val.images, data.test) == (30, 10, None)
    assert data.classes == ["cat", "dog"]


@pytest.mark.parametrize(
    ("data", "sizes"),
    [
        ((Told(20), Told(6)), (18, 2, 6)),
        ((Told(20), Told(4), Told(6)), (20, 4, 6)),
        ((Told(20), Told(4), None), (20, 4, 0)),
        ({"train": Told(20), "Validation": Told(4)}, (20, 4, 0)),
        ({"test": Told(6), "train": Told(20)}, (18, 2, 6)),
        (((torch.zeros(20, 1, 8, 8, dtype=torch.uint8), torch.arange(20) % 2), Told(4), None), (20, 4, 0)),
        ((torch.zeros(20, 1, 8, 8, dtype=torch.uint8), torch.arange(20) % 2), (18, 2, 0)),
        (tuple((torch.zeros(1, 8, 8), index % 2) for index in range(3)), (2, 1, 0)),
    ],
    ids=["two", "three", "no test", "dict", "dict without val", "tensors for train", "tensors", "pairs"],
)
def test_parts_come_together_as_a_tuple_or_a_dict(data: Any, sizes: tuple[int, int, int]) -> None:
    built = build(data, val=0.34 if len(data) == 3 and isinstance(data[2], tuple) else 0.1)
    loaders = (built.train, built.val, built.test)
    assert tuple(len(loader.labels) if loader else 0 for loader in loaders) == sizes
    assert given["calls"] == 1


def test_one_by_one_the_images_are_those_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"train": Told(40), "test": Told(10)}
    block = build(parts, "by_part", batch_size=8)
    monkeypatch.setattr(user_data, "BLOCK", 0)
    for loader, kind in ((LoaderKind.stream, StreamLoader), (LoaderKind.memory, MemoryLoader)):
        data = build(parts, "by_part", batch_size=8, loader=loader)
        assert isinstance(data.train, kind)
        for name in ("train", "val", "test"):
            assert pixels(getattr(data, name)) == pixels(getattr(block, name))
        assert (data.image_size, data.crop, data.classes) == (block.image_size, 1.0, block.classes)
        assert data.mean == pytest.approx(block.mean)
        names = [built.val.name(0) for built in (data, block) if built.val]
        assert names[0] == names[1]


@pytest.mark.usefixtures("one_by_one")
def test_a_large_data_set_is_looked_at_and_no_more() -> None:
    items = Told(1000)
    data = build(items, loader=LoaderKind.stream, mean=[0.5], std=[0.5], batch_size=8)
    assert len(set(items.asked)) == user_data.LOOKS
    batches = data.train.batches()
    next(batches)
    batches.close()
    assert len(set(items.asked)) < 100


def test_images_of_several_sizes_are_seen_as_those_in_files_are() -> None:
    data = build(Told(sizes=5), image_size=8)
    assert (data.image_size, data.crop, data.channels) == (8, 0.875, 3)
    assert next(iter(data.train.batches())).images.shape[1:] == (3, 8, 8)
    late = [Pictures()[index] for index in range(120)]
    late[99] = np.zeros((9, 9, 3), np.uint8), 0
    assert build(late, image_size=8).crop == 1.0  # no look has met it


@pytest.mark.usefixtures("one_by_one")
def test_labels_are_those_that_the_items_confirm() -> None:
    class Odd(Told):
        targets = [7] * 40

    for data in (Told(), Pictures(), Odd(), Subset(Told(60), range(40)), Subset(Pictures(60), list(range(40)))):  # type: ignore[arg-type]
        built = build(data, val=0.25, mean=[0.5], std=[0.5])
        assert sorted([*built.train.labels.tolist(), *built.val.labels.tolist()]) == [0] * 20 + [1] * 20  # type: ignore[union-attr]
    inner = Told(60)
    build(Subset(inner, range(40)), loader=LoaderKind.stream, mean=[0.5], std=[0.5])  # type: ignore[arg-type]
    assert len(set(inner.asked)) == user_data.LOOKS


@pytest.mark.usefixtures("one_by_one")
def test_labels_that_no_one_keeps_are_read_with_a_line_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_items, "SECONDS", 0.0)
    lines: list[str] = []
    part = user_items.Part("my:data", "train", Pictures(3))
    assert user_labels.read_labels(part, lines.append).tolist() == [0, 1, 0]
    assert lines[0].startswith("labels of train: read with all 3 items, as my:data has no `targets`")
    assert lines[-1] == "labels of train: 2 of 3 items read"


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("workers", [0, 2])
def test_an_item_that_fails_in_a_thread_is_told_or_left_out(workers: int) -> None:
    settings: dict[str, Any] = {"mean": [0.5], "std": [0.5], "val": 0, "workers": workers, "loader": LoaderKind.stream}
    data = build(Broken(100), **settings)
    with pytest.raises(ConfigError) as fault:
        pixels(data.train)
    told = str(fault.value)
    assert told.startswith(
        f"data.name: {__name__}:whole fails on item 50 of train (OSError: no such shard, in {Path(__file__).name}:"
    )
    assert told.endswith("; correct it, or set data.on_bad_image=skip")
    data = build(Broken(100), **settings, on_bad_image=OnBadImage.skip)
    assert sum(len(labels) for _, labels in pixels(data.train)) == 100
    ((file, reason),) = data.train.bad_files
    assert file == "train/50"
    assert "no such shard" in reason


def test_a_block_with_a_bad_item_is_read_one_by_one_where_it_may_be_left_out() -> None:
    with pytest.raises(ConfigError, match=r"fails on item 50 of train \(OSError: no such shard"):
        build(Broken(100))
    data = build(Broken(100), on_bad_image=OnBadImage.skip)
    assert pixels(data.train)
    assert [*data.train.bad_files, *(data.val.bad_files if data.val else [])]


def test_a_data_set_that_augments_by_itself_is_told() -> None:
    class Restless(Told):
        def __getitem__(self, index: int) -> tuple[Any, Any]:
            return torch.rand(3, 8, 8), index % 2

    (warning,) = build(Restless()).warnings
    assert "gives other pixels each time" in warning
    assert build(Told()).warnings == []


def test_what_is_for_items_one_by_one_is_told_to_do_nothing_for_a_block() -> None:
    keys = [
        warning.partition(":")[0]
        for warning in build(Told(), crop=0.9, workers=2, on_bad_image=OnBadImage.skip).warnings
    ]
    assert keys == ["data.crop", "data.workers", "data.on_bad_image"]


@pytest.mark.usefixtures("one_by_one")
def test_classes_are_chosen_and_aligned() -> None:
    class Four(Pictures):
        classes = ("a", "b", "c", "d")

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            return super().__getitem__(index)[0], index % 4

    data = build(Four(), classes=["d", "b"], val=0)
    assert data.classes == ["d", "b"]
    assert data.train.labels.bincount().tolist() == [10, 10]
    image, label = (values[0] for values in next(iter(data.train.batches()))[:2])
    numbers = [3, 7, 11, 15, 19, 23, 27, 31, 35, 39] if int(label) == 0 else list(range(1, 40, 4))
    known = [torch.from_numpy(np.array(Four()[number][0])).permute(2, 0, 1) for number in numbers]
    assert any(torch.equal(image, one) for one in known)
    with pytest.raises(ConfigError, match="no class 'e' in the data"):
        build(Four(), classes=["d", "e"])


def test_one_class_is_too_few() -> None:
    with pytest.raises((ConfigError, DataError), match="it takes two or more"):
        build([(np.zeros((8, 8 + index), np.uint8), 0) for index in range(4)])


SOURCE = """
import numpy as np
from PIL import Image
from torch import nn

class Photos:
    classes = ["dark", "light"]

    def __init__(self, count=60):
        self.targets = [index % 2 for index in range(count)]

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        noise = np.random.default_rng(index).integers(0, 60, (20 + index % 7, 24, 3))
        return Image.fromarray((noise + 150 * (index % 2)).astype(np.uint8)), index % 2

def parts():
    return {"train": Photos(), "val": Photos(12), "test": Photos(8)}
"""


def test_a_run_of_items_goes_on_with_the_same_bits_and_is_scored(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "my_items.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(here))
    line = ["data=own", "data.name=my_items:parts", "data.image_size=32", "data.batch_size=20", "model=lenet5"]
    line += ["data.loader=stream", "trainer.threads=1", "trainer.tensorboard=false", "augment=resized_crop"]
    assert cli.main([*line, "trainer.max_steps=5", "out=whole"]) == 0
    assert cli.main([*line, "trainer.max_steps=2", "out=parts"]) == 0
    assert cli.main(["resume", "parts", "trainer.max_steps=5"]) == 8
    again = ["data.name=my_items:parts"]
    assert cli.main(["resume", "parts", "trainer.max_steps=5", *again]) == 0
    first, second = (json.loads((here / run / "results.json").read_text()) for run in ("whole", "parts"))
    assert (first["val"], first["test"]) == (second["val"], second["test"])
    assert cli.main(["eval", "parts", "tta=hflip", *again]) == 0
    assert cli.main(["explain", "parts", *again]) == 0
    view = cnntrain.load(here / "parts")._view
    assert (view.size, view.share) == (32, 0.875)


class Tagged(Pictures):
    """Items with a 0 or 1 for each of three classes."""

    classes = ("a", "b", "c")
    form_of_label: Callable[[list[int]], Any] = staticmethod(torch.tensor)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return super().__getitem__(index)[0], self.form_of_label([index % 2, int(index % 3 == 0), index % 5 // 4])


@pytest.mark.parametrize("form", [list, tuple, np.array, torch.tensor, lambda row: torch.tensor(row).float()])
@pytest.mark.parametrize("block", [True, False])
def test_a_0_or_1_for_each_class_is_a_set_of_labels(form: Any, block: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_data, "BLOCK", 2 * 10**9 if block else 0)
    tagged = Tagged(20)
    tagged.form_of_label = form
    data = build(tagged, multi_label=True, val=0, mean=[0.5], std=[0.5])
    assert (data.classes, data.multi_label) == (["a", "b", "c"], True)
    known = [[bool(i % 2), i % 3 == 0, i % 5 == 4] for i in range(20)]
    assert data.train.labels.tolist() == known
    assert any(labels.dtype == torch.bool for _, labels, *_ in data.train.batches())


def test_labels_that_are_no_sets_are_told() -> None:
    with pytest.raises(ConfigError, match=r"gives label 0 \(int\) for item 0 of train; give each image 0s and 1s"):
        build(Told(), multi_label=True)
    with pytest.raises(
        ConfigError, match=r"gives label tensor.* for item 0 of train; give each image one whole number"
    ):
        build(Tagged())
    tagged = Tagged()
    tagged.classes = ("a", "b")  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="has 2 classes, and labels of 3 numbers; give each image a 0 or 1"):
        build(tagged, multi_label=True)
    images = torch.zeros(8, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ConfigError, match=r"gives labels int64 \(8,\); give each image a 0 or 1 for each class"):
        build((images, torch.arange(8)), multi_label=True)
    labels = torch.arange(16).view(8, 2) % 2
    assert build((images, labels), multi_label=True, val=0).train.labels.tolist() == labels.bool().tolist()
