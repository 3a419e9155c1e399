"""The loss curves of three small trainings, one per loader and one with mixing and EMA: what proves a refactor.

Only the command line and the files of the run folder are used, so that nothing inside can be in the way. The test
`test_loss_curves.py` compares with loss_curves.json; a change that is meant to alter the maths makes that anew:

    python tests/loss_curves.py

and says so in its commit, whose diff shows which of the three curves moved.
"""

import contextlib
import csv
import io
import json
import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cnntrain import cli

FILE = Path(__file__).with_suffix(".json")
COLUMNS = ("loss", "top1", "val_loss", "val_top1", "val_top5", "probe_loss", "probe_top1", "lr", "grad_norm")
COMMON = (
    "seed=7",
    "trainer=cpu",
    "trainer.threads=1",
    "trainer.channels_last=false",
    "trainer.epochs=2",
    "trainer.log_every=1",
    "trainer.tensorboard=false",
)
CURVES = {
    "digits in memory": (
        *("data=digits", "data.limit=112", "data.batch_size=16", "data.loader=memory", "model=cnn"),
        *("optimizer=sgd", "optimizer.lr=0.05", "trainer.probe=11"),
    ),
    "a folder, streamed": (
        *("data=imagefolder", "data.root=images", "data.image_size=24", "data.batch_size=8", "data.workers=2"),
        *("data.loader=stream", "model=cnn", "augment=[resized_crop,hflip,color_jitter]", "optimizer=adamw"),
        *("optimizer.lr=2e-3", "schedule=cosine", "trainer.accumulate=2", "trainer.clip_norm=5"),
    ),
    "mixing and EMA": (
        *("data=digits", "data.limit=112", "data.image_size=16", "data.batch_size=16", "model=resnet20"),
        *("augment=[pad_crop,randaugment,random_erasing,mixup,cutmix]", "loss.label_smoothing=0.1"),
        *("optimizer=sgd", "optimizer.lr=0.05", "trainer.ema=0.4"),  # reached with the sixth step: 6/15
    ),
}


def machine() -> dict[str, str]:
    """What decides the bits of a sum: the version of torch, its kernels, and the processor that oneDNN and MKL see."""
    try:
        told = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        told = ""
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in told.splitlines())}
    parts = [f"{key} {facts[key]}" for key in ("vendor_id", "cpu family", "model") if key in facts]
    return {
        "torch": torch.__version__,
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "processor": ", ".join(parts) or platform.machine(),
    }


def paint(folder: Path) -> None:
    """Three classes of 20 images, wide and high, JPEG and PNG: stripes in three directions, each at its own phase."""
    for number, name in enumerate(("across", "down", "slanted")):
        (folder / name).mkdir(parents=True)
        for index in range(20):
            rows, columns = np.mgrid[0 : 30 + index % 3 * 4, 0 : 38 - index % 4 * 4]
            way = (rows, columns, rows + columns)[number]
            bands = [(way * 16 + index * 37 + channel * number * 29) % 256 for channel in range(3)]
            image = Image.fromarray(np.stack(bands, axis=-1).astype(np.uint8))
            image.save(folder / name / f"{index:02}.{('png', 'jpg')[index % 2]}")


def train(words: tuple[str, ...], folder: Path) -> list[list[float | None]]:
    """One row per step and per epoch, of COLUMNS, of a training in the current folder."""
    assert cli.main([*COMMON, *words, f"out={folder}"]) == 0
    with (folder / "metrics.csv").open(newline="") as file:
        return [[float(row[name]) if row[name] else None for name in COLUMNS] for row in csv.DictReader(file)]


@contextlib.contextmanager
def empty_folder() -> Iterator[Path]:
    """A temporary folder, which is the current one, and a cache of its own."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        try:
            yield Path(name)
        finally:
            os.chdir(before)


def write() -> None:
    """Make loss_curves.json anew, a line per row."""
    with empty_folder(), contextlib.redirect_stdout(io.StringIO()):
        paint(Path("images"))
        curves = {name: train(words, Path(f"run{number}")) for number, (name, words) in enumerate(CURVES.items())}
    rows = {
        name: "[\n      " + ",\n      ".join(json.dumps(row) for row in curve) + "\n    ]"
        for name, curve in curves.items()
    }
    parts = ",\n    ".join(f"{json.dumps(name)}: {text}" for name, text in rows.items())
    about = {**machine(), "columns": COLUMNS}
    head = "".join(f"  {json.dumps(key)}: {json.dumps(value)},\n" for key, value in about.items())
    FILE.write_text(f'{{\n{head}  "curves": {{\n    {parts}\n  }}\n}}\n')


if __name__ == "__main__":
    write()
