"""Networks side by side on the same data, steps and recipe: accuracy, speed, memory.

    python benchmarks/families.py models=resnet18,densenet121 [stems=auto,imagenet] [cnntrain overrides]

Each network is trained by a command of its own, `cnntrain model=NAME model.stem=STEM` with the overrides given, one
after the other. Printed is a Markdown table: parameters and multiply-adds at the size of these images, accuracy on the
test images, seconds of the whole command, training images/s and the peak memory of the process.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from cnntrain.config.compose import compose_settings
from cnntrain.inspect.summary.rows import inspect
from cnntrain.models.build import build_model
from cnntrain.storage import checkpoint


def train(overrides: list[str]) -> dict[str, Any]:
    """The results.json of one command, with the multiply-adds of its network as `macs`."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "cnntrain", *overrides, f"hydra.run.dir={run}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        about = checkpoint.load(run / "checkpoints" / "best")["about"]
        return json.loads((run / "results.json").read_text()) | {"macs": macs(overrides, about)}


def macs(overrides: list[str], about: dict[str, Any]) -> int:
    """Multiply-adds for one image."""
    channels, size = about["channels"], about["image_size"]
    with torch.device("meta"):
        model, _ = build_model(
            compose_settings(overrides).model, classes=len(about["classes"]), channels=channels, image_size=size
        )
    return sum(row.macs for row in inspect(model, channels, size))


def main() -> None:
    own = ("models=", "stems=")
    words = dict(word.split("=", 1) for word in sys.argv[1:] if word.startswith(own))
    overrides = [word for word in sys.argv[1:] if not word.startswith(own)]
    print("| network | stem | parameters | multiply-adds | test top-1 | seconds | images/s | memory |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in words["models"].split(","):
        for stem in words.get("stems", "auto").split(","):
            got = train([f"model={name}", f"model.stem={stem}", *overrides])
            print(
                f"| {name} | {stem} | {got['parameters'] / 1e6:.2f} M | {got['macs'] / 1e6:,.1f} M "
                f"| {got['test']['top1']:.1%} | {got['seconds']:.0f} | {got['images_per_second']:,.0f} "
                f"| {got['peak_memory_bytes'] / 2**20:,.0f} MiB |",
                flush=True,
            )


if __name__ == "__main__":
    main()
