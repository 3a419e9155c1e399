"""Do exported files answer as the networks they come from? ONNX in onnxruntime against torch, on the same images.

    python benchmarks/export.py models=resnet18@224,timm/legacy_xception@96 [images=500] [cnntrain overrides]

Each network is trained for some steps by a command of its own, so that its batch norms have met images and its classes
differ: `cnntrain model=NAME data.image_size=SIZE` with the overrides given, such as `trainer.max_steps=10
data.batch_size=8`. Printed is a Markdown table: parameters, seconds of the export, megabytes of the file, the largest
difference of a logit as a part of the largest logit of the same image, and the images of which both say the same class.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from cnntrain.export import parity
from cnntrain.export.subject import Subject
from cnntrain.export.to_onnx import to_onnx
from cnntrain.report.run_report import Report
from cnntrain.training.load_run import load_job


def train(name: str, size: str, overrides: list[str], folder: Path) -> Path:
    """The folder of a run of one command; its checkpoint is what is exported."""
    library, _, last = name.rpartition("/")
    model = [f"model={library}", f"model.name={last}"] if library else [f"model={name}"]
    sizes = [f"data.image_size={size}"] if size else []
    command = [sys.executable, "-m", "cnntrain", *model, *sizes, *overrides, f"out={folder}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def measure(name: str, run: Path, count: int) -> str:
    """The row of a network."""
    _, _, job = load_job(run, [], Report(None, tensorboard=False))
    loader = list(job.data.scored_splits.values())[-1]
    images = loader.pick(torch.linspace(0, len(loader.labels) - 1, min(count, len(loader.labels))).long())
    start = time.perf_counter()
    file = to_onnx(subject := Subject(job))
    seconds = time.perf_counter() - start
    found = parity.compare(file, subject, images.cpu())
    megabytes = len(file.content) / 1e6
    return (
        f"| {name} | {job.data.eval_size} | {job.parameters / 1e6:.2f} M | {seconds:.1f} | {megabytes:.1f} "
        f"| {found.difference:.1e} | {found.same_class} of {found.images} |"
    )


def main() -> None:
    own = ("models=", "images=")
    words = dict(word.split("=", 1) for word in sys.argv[1:] if word.startswith(own))
    overrides = [word for word in sys.argv[1:] if not word.startswith(own)]
    print("| network | pixels | parameters | seconds | MB | difference | same class |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for spec in words["models"].split(","):
        name, _, size = spec.partition("@")
        with tempfile.TemporaryDirectory() as folder:
            run = train(name, size, overrides, Path(folder) / "run")
            print(measure(name, run, int(words.get("images", 500))), flush=True)


if __name__ == "__main__":
    main()
