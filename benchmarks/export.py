"""Do exported files answer as the networks they come from? ONNX in onnxruntime against torch, on the same images.

    python benchmarks/export.py models=resnet18@224,timm/legacy_xception@96 [images=500] [cnntrain overrides]

The weights are random, but batch norms know their inputs from some validation images, and the bias of the head is moved
so that no class wins everywhere: as hard for top-1 as can be. Printed is a Markdown table: parameters, seconds of the
export, megabytes of the file, the largest difference of a logit as a part of the largest logit of the same image, the
images of which both say the same class, and how many classes these are.
"""

import sys
import time

import torch
from torch import nn

from cnntrain.config.compose import compose_settings
from cnntrain.data.build import build_eval_data
from cnntrain.export import parity
from cnntrain.export.subject import Subject
from cnntrain.export.to_onnx import to_onnx
from cnntrain.models.head import find_head
from cnntrain.training.build import build_eval_job
from cnntrain.training.job import Job

SEEN, BATCH = 64, 16  # images, and how many at a time


@torch.no_grad()
def network(name: str, size: str, overrides: list[str]) -> Job:
    """A network that could be a trained one."""
    library, _, last = name.rpartition("/")
    model = [f"model={library}", f"model.name={last}"] if library else [f"model={name}"]
    sizes = [f"data.image_size={size}"] if size else []
    settings = compose_settings([*model, *sizes, "trainer.device=cpu", *overrides])
    data = build_eval_data(settings.data, seed=0, device=torch.device("cpu"), say=lambda line: None)
    job = build_eval_job(settings, lambda line: None, classes=data.classes, data=data)
    loader = next(iter(data.scored_splits.values()))
    order = torch.randperm(len(loader.labels), generator=torch.Generator().manual_seed(0))[:SEEN]
    for module in job.model.eval().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train().momentum = None
    for rows in order.split(BATCH):
        job.model(job.normalize(loader.pick(rows)))
    head = job.model.eval().get_submodule(find_head(job.model))
    head.bias -= job.model(job.normalize(loader.pick(order))).mean(0)
    return job


def measure(name: str, job: Job, count: int) -> str:
    """The row of a network."""
    loader = list(job.data.scored_splits.values())[-1]
    images = loader.pick(torch.linspace(0, len(loader.labels) - 1, min(count, len(loader.labels))).long())
    subject = Subject(job)
    start = time.perf_counter()
    file = to_onnx(subject)
    seconds, megabytes = time.perf_counter() - start, len(file.content) / 1e6
    found = parity.compare(file, subject, images)
    classes = len({int(file.ask(subject.inputs(image[None])).argmax()) for image in images[:100]})
    return (
        f"| {name} | {job.data.eval_size} | {job.parameters / 1e6:.2f} M | {seconds:.1f} | {megabytes:.1f} "
        f"| {found.difference:.1e} | {found.same_class} of {found.images} | {classes} |"
    )


def main() -> None:
    own = ("models=", "images=")
    words = dict(word.split("=", 1) for word in sys.argv[1:] if word.startswith(own))
    overrides = [word for word in sys.argv[1:] if not word.startswith(own)]
    print("| network | pixels | parameters | seconds | MB | difference | same class | classes |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for spec in words["models"].split(","):
        name, _, size = spec.partition("@")
        print(measure(name, network(name, size, overrides), int(words.get("images", 500))), flush=True)


if __name__ == "__main__":
    main()
