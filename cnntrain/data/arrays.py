"""Images and labels as arrays in one .npz file of NumPy's, which np.savez and np.savez_compressed write."""

import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnntrain.config.need_images import need_array_file
from cnntrain.config.paths import expand_path
from cnntrain.data.common import Request
from cnntrain.data.datasets import TensorSet
from cnntrain.data.labels import LONGEST_LABEL
from cnntrain.errors import DataError, ResourceError
from cnntrain.text import counted, cut, few, one_line, printable

# What the arrays of each split are called, whatever the case.
_PAIRS = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels"), ("images", "labels")),
    "val": (("x_val", "y_val"), ("val_images", "val_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}
_NAMES = "classes"
_TAKEN = "it takes images and labels, or x_train, y_train, x_val, y_val, x_test and y_test"
_IMAGES = "images are uint8 (N, H, W), (N, H, W, C) or (N, C, H, W), C being 1 or 3"
# What NumPy raises for a file, or an array in one, that is damaged or none of its own.
_DAMAGE = (
    *(OSError, ValueError, EOFError, KeyError, NotImplementedError, OverflowError, RecursionError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


@dataclass
class _Part:
    """Images uint8 (N, C, H, W) and labels, int64 (N,) or bool (N, K), of a split, and how the file calls these."""

    images: Tensor
    labels: Tensor
    key: str


def arrays(request: Request) -> TensorSet:
    """The arrays in the file that data.root names. Nothing in it is ever run: pickled objects are refused.

    Raises:
        DataError: no such file, a damaged one, or arrays that are no images and labels of them.
    """
    path = expand_path(request.settings.root)
    need_array_file(path)
    with ExitStack() as stack:
        file = _File(path, stack, request.settings.multi_label)
        parts = {split: part for split, pairs in _PAIRS.items() if (part := file.part(pairs))}
        if "train" not in parts:
            there = few(map(printable, file.keys.values())) or "nothing in it"
            raise file.fault(f"has {there}, none to train on; {_TAKEN}")
        classes = (_columns if request.settings.multi_label else _class_names)(file, parts)
    if file.unused:
        request.notes.append(f"not used of {printable(file.path.name)}: {few(map(printable, file.unused))}")
    sets = {split: (part.images, part.labels) for split, part in parts.items()}
    return TensorSet(classes, sets["train"], sets.get("test"), sets.get("val"))


def _class_names(file: "_File", parts: Mapping[str, _Part]) -> list[str]:
    """The names in the array `classes`, else the labels, which count from 0 without a gap."""
    train = parts["train"]
    known = train.labels.unique().tolist()
    names = file.names(_NAMES)
    count = len(names) if names else known[-1] + 1
    gap = next((label for label, there in enumerate(known) if label != there), len(known))
    if known[0] < 0 or known[-1] >= count:
        far = known[0] if known[0] < 0 else known[-1]
        raise file.fault_of(train.key, f"has the label {far}; count the {f'{count} ' if names else ''}classes from 0")
    if gap < count:
        raise file.fault_of(train.key, f"has no label {gap}, and {count:,} classes; count them from 0 without a gap")
    for part in parts.values():
        if strangers := sorted(set(part.labels.unique().tolist()) - set(known)):
            raise file.fault_of(part.key, f"has the label {strangers[0]}, and {train.key} none of it; add such images")
    if count < 2:
        raise file.fault_of(train.key, "has one class; it takes two or more")
    return names or [str(label) for label in range(count)]


def _columns(file: "_File", parts: Mapping[str, _Part]) -> list[str]:
    """The names in the array `classes`, else the numbers of the columns that labels have."""
    count = parts["train"].labels.shape[1]
    for part in parts.values():
        if part.labels.shape[1] != count:
            columns = f"{part.labels.shape[1]:,} columns, and {parts['train'].key} {count:,}"
            raise file.fault_of(part.key, f"has {columns}; give both one for each class")
    names = file.names(_NAMES) or [str(label) for label in range(count)]
    if len(names) != count:
        raise file.fault_of(_NAMES, f"has {len(names):,} names for {count:,} columns of labels; give each one")
    learnt = parts["train"].labels.any(0)
    for part in parts.values():
        if strangers := (part.labels.any(0) & ~learnt).nonzero().flatten().tolist():
            text = f"has images with the label {names[strangers[0]]}, and {parts['train'].key} none; add such images"
            raise file.fault_of(part.key, text)
    return names


class _File:
    """An open .npz file, which the stack closes.

    Attributes:
        path: of it.
        has_sets: labels have a column for each class.
        content: as NumPy opens it.
        keys: the names of its arrays, by these in small letters.
        unused: the names of those that have not been read.
    """

    def __init__(self, path: Path, stack: ExitStack, has_sets: bool) -> None:
        self.path, self.has_sets = path, has_sets
        try:
            stream = stack.enter_context(path.open("rb"))  # NumPy may leave a damaged one open
        except OSError as error:
            raise self.fault(f"cannot be read ({error.strerror}); mend that") from None
        try:
            self.content = np.load(stream, allow_pickle=False)
        except _DAMAGE as error:
            raise self.fault(f"is no .npz file, or a damaged one ({_reason(error)}); {_TAKEN}") from None
        if isinstance(self.content, np.ndarray):
            raise self.fault("holds one array; save images and labels together, by np.savez")
        self.keys = {key.casefold(): key for key in self.content.files}
        self.unused = list(self.content.files)

    def fault(self, text: str) -> DataError:
        """A fault of the file."""
        return DataError(f"data.root: {printable(self.path)} {text}")

    def fault_of(self, key: str, text: str) -> DataError:
        """A fault of an array in it."""
        return DataError(f"data.root: {printable(self.path)}: {printable(key)} {text}")

    def part(self, pairs: tuple[tuple[str, str], ...]) -> _Part | None:
        """The images and labels by the first pair of names that is there; None where there is none."""
        for pair in pairs:
            there = [self.keys[name] for name in pair if name in self.keys]
            if len(there) == 1:
                missing = next(name for name in pair if name not in self.keys)
                raise self.fault(f"has {printable(there[0])} and no {missing}; add it")
            if there:
                images, labels = self._images(there[0]), self._labels(there[1])
                if len(images) != len(labels):
                    counts = f"{counted(len(labels), 'label')} for {counted(len(images), 'image')} of {there[0]}"
                    raise self.fault_of(there[1], f"has {counts}; give each image one")
                return _Part(images, labels, there[1])
        return None

    def names(self, key: str) -> list[str]:
        """The texts of an array, empty where there is no such array."""
        if key not in self.keys:
            return []
        array = self._array(self.keys[key])
        names = [printable(name) for name in array.tolist()] if array.dtype.kind == "U" and array.ndim == 1 else []
        if not names or "" in names or len(set(names)) < len(names) or max(map(len, names)) > LONGEST_LABEL:
            raise self._misfit(
                key, array, "it is a list of names, one for each label, each of them once and of 200 letters at most"
            )
        return names

    def _images(self, key: str) -> Tensor:
        """uint8 (N, C, H, W)."""
        array = self._array(key)
        is_last = array.ndim == 4 and array.shape[3] in (1, 3)
        is_image = array.ndim == 3 or is_last or (array.ndim == 4 and array.shape[1] in (1, 3))
        if not is_image or array.dtype != np.uint8:
            floats = "; of levels 0 to 1, (255 * x).round().astype('uint8') makes them" * (array.dtype.kind == "f")
            raise self._misfit(key, array, f"{_IMAGES}{floats}")
        if not array.size:
            raise self._misfit(key, array, "it takes images of at least one pixel")
        planes = array[:, None] if array.ndim == 3 else array.transpose(0, 3, 1, 2) if is_last else array
        return torch.from_numpy(np.ascontiguousarray(planes))

    def _labels(self, key: str) -> Tensor:
        """int64 (N,), or bool (N, K)."""
        array = self._array(key)
        if self.has_sets:
            is_number = array.dtype.kind in "iub" and array.ndim == 2 and array.shape[1] > 1
            if not (is_number and np.isin(array, (0, 1)).all()):
                rule = "labels of data.multi_label=true are 0 or 1, (N, K), with a column for each class, two or more"
                raise self._misfit(key, array, rule)
            return torch.from_numpy(array.astype(np.bool_))
        flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
        if flat.dtype.kind not in "iub" or flat.ndim != 1:
            columns = "; columns of 0 and 1 are for data.multi_label=true, or y.argmax(1) makes them" * (flat.ndim == 2)
            texts = f"; of names, classes, {key} = np.unique({key}, return_inverse=True) makes them: save both"
            names = texts * (flat.ndim == 1 and flat.dtype.kind in "US")
            raise self._misfit(key, array, f"labels are whole numbers (N,), from 0{columns}{names}")
        return torch.from_numpy(flat.astype(np.int64))

    def _array(self, key: str) -> np.ndarray:
        try:
            array = self.content[key]
        except _DAMAGE as error:
            if "allow_pickle" in str(error):
                what = "holds Python objects, which are not read, as they can run code; save it as plain numbers"
                raise self.fault_of(key, what) from None
            raise self.fault_of(key, f"is damaged ({_reason(error)}); save the file anew") from None
        except MemoryError as error:
            what = f"does not fit into memory, or is damaged ({_reason(error)}); save fewer images, or each in a file"
            raise ResourceError(str(self.fault_of(key, what))) from None
        if not isinstance(array, np.ndarray):  # a file of another kind in the archive
            raise self.fault_of(key, "is no array; save the file by np.savez")
        self.unused.remove(key)
        return array

    def _misfit(self, key: str, array: np.ndarray, rule: str) -> DataError:
        return self.fault_of(key, f"is {array.dtype} {array.shape}; {rule}")


def _reason(error: BaseException) -> str:
    return cut(printable(one_line(error)), 120)
