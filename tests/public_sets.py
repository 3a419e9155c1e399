"""Files in the formats of public data sets, a few images of random pixels each, and what is to be read out of them."""

import bz2
import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Parts = dict[str, tuple[np.ndarray, np.ndarray]]  # of a split the pixels (N, C, H, W) and the labels (N,)
COUNTS = {"train": 40, "test": 20}


def draw(channels: int, size: int, classes: int = 10) -> Parts:
    """Images of each class, in turn."""
    random = np.random.default_rng(0)
    return {
        split: (random.integers(0, 256, (count, channels, size, size), dtype=np.uint8), np.arange(count) % classes)
        for split, count in COUNTS.items()
    }


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


def write_idx(file: Path, values: np.ndarray) -> None:
    """The format of MNIST: bytes, or whole numbers of four of them."""
    kind = 8 if values.dtype == np.uint8 else 12
    header = struct.pack(f">{1 + values.ndim}i", 256 * kind + values.ndim, *values.shape)
    file.write_bytes(header + (values if kind == 8 else values.astype(">i4")).tobytes())


def lay_out_mnist(folder: Path, parts: Parts, name: Callable[[str], str]) -> None:
    for split, (images, labels) in parts.items():
        write_idx(folder / f"{name(split)}-images-idx3-ubyte", images[:, 0])
        write_idx(folder / f"{name(split)}-labels-idx1-ubyte", labels.astype(np.uint8))


def mnist(folder: Path, patch: pytest.MonkeyPatch, variant: str) -> Parts:
    parts = draw(1, 28)
    lay_out_mnist(folder, parts, {"train": "train", "test": "t10k"}.__getitem__)
    return parts


def qmnist(folder: Path, patch: pytest.MonkeyPatch, variant: str) -> Parts:
    parts = draw(1, 28)
    for split, (images, labels) in parts.items():
        write_idx(folder / f"qmnist-{split}-images-idx3-ubyte", images[:, 0])
        more = np.column_stack([labels, *[np.arange(len(labels)) + 300] * 7])  # writer, and where it comes from
        write_idx(folder / f"qmnist-{split}-labels-idx2-int", more.astype(np.int32))
    return parts


def emnist(folder: Path, patch: pytest.MonkeyPatch, variant: str) -> Parts:
    """Each image lies on its side, and letters count from 1."""
    parts = draw(1, 28, 26 if variant == "letters" else 10)
    kept = {
        split: (images.swapaxes(2, 3), labels + (variant == "letters")) for split, (images, labels) in parts.items()
    }
    lay_out_mnist(folder, kept, lambda split: f"emnist-{variant or 'balanced'}-{split}")
    return parts


def usps(folder: Path, patch: pytest.MonkeyPatch, variant: str) -> Parts:
    from torchvision.datasets import USPS

    parts, places = draw(1, 16), {}
    for split, file in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        images, labels = parts[split]
        lines = [
            f"{label + 1} " + " ".join(f"{place}:{level:.7f}" for place, level in enumerate(levels, 1))
            for label, levels in zip(labels, (images.reshape(len(images), -1) + 0.5) / 255 * 2 - 1, strict=True)
        ]
        (folder / file).write_bytes(bz2.compress("\n".join(lines).encode()))
        places[split] = ["", file, md5(folder / file)]
    patch.setattr(USPS, "split_list", places)
    return parts


def svhn(folder: Path, patch: pytest.MonkeyPatch, variant: str) -> Parts:
    """The digit 0 has the label 10."""
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    parts, places = draw(3, 32), {}
    for split, (images, labels) in parts.items():
        file = folder / f"{split}_32x32.mat"
        savemat(file, {"X": images.transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None]})
        places[split] = ["", file.name, md5(file)]
    patch.setattr(SVHN, "split_list", places)
    return parts


def stl10(folder: Path, patch: pytest.MonkeyPatch, variant: str) -> Parts:
    """Pixels go down the columns."""
    from torchvision.datasets import STL10

    parts = draw(3, 96)
    for split, (images, labels) in parts.items():
        (folder / f"{split}_X.bin").write_bytes(images.swapaxes(2, 3).tobytes())
        (folder / f"{split}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
    (folder / "unlabeled_X.bin").write_bytes(b"")
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    files = {
        split: [[file.name, md5(file)] for file in sorted(folder.glob(f"{split}_*.bin"))] for split in ("train", "test")
    }
    patch.setattr(STL10, "train_list", [*files["train"], ["unlabeled_X.bin", md5(folder / "unlabeled_X.bin")]])
    patch.setattr(STL10, "test_list", files["test"])
    return parts


TENSORS = {
    **dict.fromkeys(("mnist", "fashion_mnist", "kmnist"), mnist),
    "qmnist": qmnist,
    "emnist": emnist,
    "usps": usps,
    "svhn": svhn,
    "stl10": stl10,
}


# --- of files: what is to be read are the classes, and the names of the files of each split by class ------------------

Names = dict[str, dict[str, list[str]]]
SPLITS = {"train": 4, "val": 2, "test": 2}


def picture(file: Path, seed: int = 0) -> str:
    """A file of random pixels; its name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(file)
    return file.name


def class_folders(folder: Path, names: Sequence[str], end: str = "jpg", count: int = 4) -> dict[str, list[str]]:
    return {name: [picture(folder / name / f"{name}_{place}.{end}") for place in range(count)] for name in names}


def listed(
    folder: Path, splits: Sequence[str], classes: Sequence[str], name: str
) -> tuple[Names, dict[str, list[str]]]:
    """Pictures below a folder, by class, and the names that a list of each split has of them."""
    names: Names = {split: {one: [] for one in classes} for split in splits}
    lists: dict[str, list[str]] = {split: [] for split in splits}
    places = [(split, one) for split in splits for one in classes for _ in range(SPLITS[split])]
    for number, (split, one) in enumerate(places, 1):
        line = name.format(name=one, number=number)
        names[split][one].append(picture(folder / f"{line}.jpg", number))
        lists[split].append(line)
    return names, lists


def imagenette(folder: Path, patch: pytest.MonkeyPatch) -> Names:
    ids = {"n02102040": "English springer", "n01440764": "tench"}
    return {
        split: {ids[one]: files for one, files in class_folders(folder / split, tuple(ids), "JPEG").items()}
        for split in ("train", "val")
    }


def flowers102(folder: Path, patch: pytest.MonkeyPatch) -> Names:
    from scipy.io import savemat

    classes = ("pink primrose", "canterbury bells")  # the first and the third
    names, lists = listed(folder / "jpg", tuple(SPLITS), classes, "image_{number:05}")
    numbers = {split: [int(line[-5:]) for line in lines] for split, lines in lists.items()}
    labels = [0] * max(max(part) for part in numbers.values())
    for split, lines in lists.items():
        for line in lines:
            labels[int(line[-5:]) - 1] = 1 if f"{line}.jpg" in names[split][classes[0]] else 3
    savemat(folder / "imagelabels.mat", {"labels": labels})
    savemat(folder / "setid.mat", {"trnid": numbers["train"], "valid": numbers["val"], "tstid": numbers["test"]})
    return names


def pets(folder: Path, patch: pytest.MonkeyPatch) -> Names:
    names, lists = listed(folder / "images", ("train", "test"), ("Sphynx", "great_pyrenees"), "{name}_{number}")
    (folder / "annotations").mkdir()
    for split, file in (("train", "trainval"), ("test", "test")):
        text = "".join(f"{line} 1 1 1\n" for line in lists[split])
        (folder / "annotations" / f"{file}.txt").write_text(text)
    return {
        split: {"Sphynx": part["Sphynx"], "Great Pyrenees": part["great_pyrenees"]} for split, part in names.items()
    }


def dtd(folder: Path, patch: pytest.MonkeyPatch) -> Names:
    names, lists = listed(folder / "images", tuple(SPLITS), ("banded", "woven"), "{name}/{name}_{number}")
    (folder / "labels").mkdir()
    for split, lines in lists.items():
        (folder / "labels" / f"{split}1.txt").write_text("".join(f"{line}.jpg\n" for line in lines))
    return names


def food101(folder: Path, patch: pytest.MonkeyPatch) -> Names:
    names, lists = listed(folder / "images", ("train", "test"), ("pho", "ramen"), "{name}/{number}")
    (folder / "meta").mkdir()
    for split, lines in lists.items():
        content = {name: [line for line in lines if line.startswith(name)] for name in names[split]}
        (folder / "meta" / f"{split}.json").write_text(json.dumps(content))
    return names


def gtsrb(folder: Path, patch: pytest.MonkeyPatch) -> Names:
    home = folder / "GTSRB"
    train = class_folders(home / "Training", ("00000", "00012"), "ppm")
    (home / "Training" / "00000" / "GT-00000.csv").write_text("Filename;ClassId\n")
    names, lists = listed(home / "Final_Test" / "Images", ("test",), ("00000", "00012"), "{number:05}")
    rows = [f"{line}.jpg;{0 if f'{line}.jpg' in names['test']['00000'] else 12}\n" for line in lists["test"]]
    (folder / "GT-final_test.csv").write_text("Filename;ClassId\n" + "".join(rows))
    return {"train": train, **names}


def fgvc_aircraft(folder: Path, patch: pytest.MonkeyPatch) -> Names:
    names, _ = listed(folder / "data" / "images", tuple(SPLITS), ("707-320", "Boeing 717"), "{number:07}")
    for split, part in names.items():
        lines = [f"{file.removesuffix('.jpg')} {name}\n" for name, files in part.items() for file in files]
        (folder / "data" / f"images_variant_{split}.txt").write_text("".join(lines))
    return names


def caltech101(folder: Path, patch: pytest.MonkeyPatch) -> Names:
    class_folders(folder, ["BACKGROUND_Google"])
    return {"train": class_folders(folder, ["ant", "bee"])}


def sun397(folder: Path, patch: pytest.MonkeyPatch) -> Names:
    names = ("abbey", "cathedral/indoor")
    return {
        "train": {
            name: [picture(folder / name[0] / name / f"sun_{name[0]}{place}.jpg") for place in range(4)]
            for name in names
        }
    }


def whole(folder: Path, patch: pytest.MonkeyPatch) -> Names:
    return {"train": class_folders(folder, ("a", "b"))}


def in_splits(folder: Path, patch: pytest.MonkeyPatch) -> Names:
    return {
        split: class_folders(folder / name, ("negative", "positive"), "png")
        for split, name in (("train", "train"), ("val", "valid"), ("test", "test"))
    }


FILES = {
    "imagenette": imagenette,
    "flowers102": flowers102,
    "pets": pets,
    "dtd": dtd,
    "food101": food101,
    "eurosat": whole,
    "gtsrb": gtsrb,
    "fgvc_aircraft": fgvc_aircraft,
    "caltech101": caltech101,
    "caltech256": whole,
    "country211": in_splits,
    "sun397": sun397,
    "rendered_sst2": in_splits,
}
