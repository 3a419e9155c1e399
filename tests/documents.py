"""README.md and docs/: the examples in them, and a folder in which these can be typed."""

import functools
import hashlib
import io
import pickle
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shard_files import samples, write_tar

from cnntrain.config.compose import compose_settings
from cnntrain.config.plain import to_yaml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PACKED = "packed"
PHOTOS = ("photos", "my_photos", "hymenoptera", "imagenette160", PACKED)  # what data.root= of the examples names


@dataclass(frozen=True)
class Example:
    """A command line of a page, and the lines that the page shows below it."""

    command: str
    output: tuple[str, ...] = field(default=(), compare=False)

    @property
    def words(self) -> list[str]:
        """All words of the line, without its comment."""
        return shlex.split(self.command, comments=True)

    @property
    def ours(self) -> list[str]:
        """The words that cnntrain gets."""
        return self.words[self.words.index("cnntrain") + 1 :]

    @property
    def is_ours(self) -> bool:
        return "cnntrain" in self.words

    @property
    def fails(self) -> bool:
        """Whether the page shows an error."""
        return any(line.startswith("cnntrain: error") for line in self.output)


def examples() -> list[Example]:
    """Every command line of all pages once; of several, that with output."""
    found: dict[str, Example] = {}
    for page in PAGES:
        for example in [*_fenced(page), *_inline(page)]:
            found[example.command] = max(found.get(example.command, example), example, key=lambda one: len(one.output))
    return list(found.values())


def _fenced(page: Path) -> Iterator[Example]:
    for kind, block in FENCED.findall(page.read_text(encoding="utf-8")):
        if kind not in ("sh", "console"):
            continue
        lines = re.sub(r"\\\n\s*", "", block).splitlines()
        starts = [index for index, line in enumerate(lines) if line and (kind == "sh" or line.startswith("$ "))]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            line = lines[start].removeprefix("$ ")
            yield Example(re.sub(r"\s+# .*", "", line), tuple(lines[start + 1 : end]))


def _inline(page: Path) -> Iterator[Example]:
    for span in spans(page):
        if re.match(r"(cnntrain|make|torchrun) \S", span):
            yield Example(span)


def spans(page: Path) -> list[str]:
    """The code spans of a page."""
    return re.findall(r"`([^`\n]+)`", FENCED.sub("", page.read_text(encoding="utf-8")))


# --- where the examples are typed ------------------------------------------------------------------------------------


def lay_out(folder: Path) -> None:
    """The files that the pages show, folders of pictures, and the config of a run, RUN_DIR."""
    for page in PAGES:
        for kind, block in FENCED.findall(page.read_text(encoding="utf-8")):
            if kind in ("python", "yaml"):
                first = re.match(r"# (\S+\.(?:py|yaml))\b", block)
                assert first, f"{page}: a block of {kind} begins with its name"
                (folder / first[1]).parent.mkdir(parents=True, exist_ok=True)
                (folder / first[1]).write_text(block, encoding="utf-8")
    parts = [(split, label) for split in ("train", "val") for label in ("cat", "dog")]
    for name in PHOTOS:
        for part, (split, label) in enumerate(parts):
            place = folder / name / split / label
            place.mkdir(parents=True)
            for number in range(8 if split == "train" else 4):
                (place / f"{number}.jpg").write_bytes(picture(10 * part + number))  # no two are the same
    shutil.make_archive(str(folder / "photos"), "zip", folder / "photos")
    for name in ("cat.jpg", "dog.jpg", "photos/a.jpg"):
        (folder / name).write_bytes(picture(0))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    np.savez(folder / "images.npz", images=pixels, labels=np.arange(40) % 2)
    for shard in range(4):
        members = samples(range(4 * shard, 4 * shard + 4))
        write_tar(folder / "shards" / f"{shard:03d}.tar", members)
    (folder / "tf_efficientnet_lite0.safetensors").touch()
    names = [f"{split}/{label}/0.jpg" for split in ("train", "val") for label in ("cat", "dog")]
    names += [name.replace("0.jpg", "1.jpg") for name in names]
    splits = "".join(f"{name},{name.partition('/')[0]}\n" for name in names)
    labels = "".join(f"photos/{name},{name.split('/')[1]}\n" for name in names)
    (folder / "labels.csv").write_text(f"file,label\n{labels}")
    tags = "".join(f"photos/{name},{name.split('/')[1]}|{'big' if '0' in name else 'small'}\n" for name in names)
    (folder / "tags.csv").write_text(f"file,labels\n{tags}photos/train/cat/2.jpg,\n")
    for home, (start, count) in {"train_images": (0, 16), "test_images": (16, 4)}.items():
        (folder / "contest" / home).mkdir(parents=True)
        for number in range(start, start + count):
            (folder / "contest" / home / f"{number:04}.jpg").write_bytes(picture(number))
    rows = "".join(f"{number:04},{('cat', 'dog')[number % 2]}\n" for number in range(16))
    (folder / "contest" / "train.csv").write_text(f"id,label\n{rows}")
    rows = "".join(f"{number:04},cat\n" for number in range(16, 20))
    (folder / "contest" / "sample_submission.csv").write_text(f"id,label\n{rows}")
    (folder / "noisy.csv").write_text("position,noisy\n" + "".join(f"{row},{row % 7 / 7}\n" for row in range(40)))
    (folder / "RUN_DIR" / "checkpoints").mkdir(parents=True)
    (folder / "RUN_DIR" / "splits.csv").write_text(f"name,split\n{splits}")
    (folder / "RUN_DIR" / "config.yaml").write_text(default_config(), encoding="utf-8")


@functools.cache
def picture(seed: int) -> bytes:
    """A JPEG file of random pixels."""
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (72, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, "JPEG")
    return content.getvalue()


@functools.cache
def default_config() -> str:
    return to_yaml(compose_settings([]))


def lay_out_cifar10(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files as CIFAR-10 has them, of random pixels; torchvision is told their checksums."""
    from torchvision.datasets import CIFAR10

    home, random = folder / CIFAR10.base_folder, np.random.default_rng(0)
    home.mkdir(parents=True)

    def write(name: str, content: dict[str, object]) -> list[str]:
        (home / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((home / name).read_bytes()).hexdigest()]

    def batch(name: str) -> list[str]:
        pixels = random.integers(0, 256, (60, 3072), dtype=np.uint8)
        return write(name, {"data": pixels, "labels": [number % 10 for number in range(60)]})

    monkeypatch.setattr(CIFAR10, "train_list", [batch(f"data_batch_{number}") for number in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch")])
    names = [f"class {number}" for number in range(10)]
    filename, md5 = write("batches.meta", {"label_names": names})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": filename, "key": "label_names", "md5": md5})
