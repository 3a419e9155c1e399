"""Augmentations side by side on the same data, network, steps and recipe: what each does to accuracy.

    python benchmarks/augmentations.py augments='none;flip_crop;[flip_crop,mixup]' [cnntrain overrides]

Each list is trained by a command of its own, `cnntrain augment=LIST` with the overrides given, one after the other.
Printed is a Markdown table: accuracy on the test images, of the last epoch on validation images, on training images as
augmented and mixed, and on some without augmentation (the probe); and seconds of the whole command.
"""

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def train(overrides: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The results.json of one command, and the last row of its epochs."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "cnntrain", *overrides, f"hydra.run.dir={run}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
            last = [row for row in csv.DictReader(file) if row["kind"] == "epoch"][-1]
        return json.loads((run / "results.json").read_text()), last


def main() -> None:
    (lists,) = (word.removeprefix("augments=") for word in sys.argv[1:] if word.startswith("augments="))
    overrides = [word for word in sys.argv[1:] if not word.startswith("augments=")]
    print("| augment | test | validation | train | probe | seconds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for augment in lists.split(";"):
        results, last = train([f"augment={augment}", *overrides])
        cells = [results["test"] and results["test"]["top1"], float(last["val_top1"]), float(last["top1"])]
        cells.append(float(last["probe_top1"]) if last["probe_top1"] else None)
        shown = " | ".join("-" if cell is None else f"{cell:.1%}" for cell in cells)
        print(f"| {augment} | {shown} | {results['seconds']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
