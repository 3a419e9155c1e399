"""What augmentation costs: our batches against torchvision's images one by one, and mixing against a training step.

    python benchmarks/augment.py [rounds=5] [part=crop,randaugment,photos,mix]

    crop         CIFAR-10's pad-and-crop, flip and normalisation of 50,000 images: torchvision's CIFAR10 data set with
                 a DataLoader and its Pillow transforms, against our loader and augmentation; black borders are the
                 usual, mirrored ones the default of data=cifar10
    randaugment  RandAugment (n=2, m=9) of 32-pixel images: torchvision.transforms.RandAugment on ready Pillow images,
                 against ours on batches of 512
    photos       the same at 224 pixels, batches of 64
    mix          mixup and CutMix in turn, on CIFAR-10 batches of 128, as a share of a ResNet-18 training step

One thread each; every round times both sides in turn in this one process. Printed are medians of
processor time, and the ratio as the median of the rounds' ratios. The images are made up: smooth gradients with noise.
"""

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torchvision import datasets, transforms

from cnntrain.augment.build import BatchContext, build_augment
from cnntrain.augment.mix import Mix
from cnntrain.augment.policies import build_policies
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.model import ModelSettings
from cnntrain.config.schema.optimizer import SgdSettings
from cnntrain.config.schema.pieces import (
    CutmixSettings,
    HflipSettings,
    MixupSettings,
    PadCropSettings,
    RandAugmentSettings,
)
from cnntrain.data.loaders import MemoryLoader
from cnntrain.models.build import build_model
from cnntrain.optim import optimizers
from cnntrain.runtime import device as machine
from cnntrain.runtime.host_memory import tune_malloc
from cnntrain.runtime.threads import set_threads
from cnntrain.training.losses import Loss

CPU = torch.device("cpu")
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]


def pictures(count: int, size: int) -> np.ndarray:
    """uint8 (count, size, size, 3)."""
    draw = np.random.default_rng(0)
    ramp = np.linspace(0, 1, size)[None, :, None, None] * draw.uniform(-150, 150, (count, 1, 1, 3))
    ramp = ramp + np.linspace(0, 1, size)[None, None, :, None] * draw.uniform(-150, 150, (count, 1, 1, 3))
    return np.clip(128 + ramp + draw.normal(0, 12, (count, size, size, 3)), 0, 255).astype(np.uint8)


def contexts(batch_size: int, size: int) -> Callable[[int], BatchContext]:
    """The context of a batch by its number."""
    indices = torch.arange(batch_size)
    return lambda number: BatchContext(CPU, 0, 0, number, image_size=size, indices=indices)


def seconds(work: Callable[[], object]) -> float:
    """Of the processor, which other work beside it changes little."""
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(title: str, peer: Callable[[], object], ours: Callable[[], object], images: int, rounds: int) -> None:
    """Time both in turn and print microseconds per image and how many times as fast ours is."""
    ours()
    rows = []
    for turn in range(rounds):
        pair = dict.fromkeys(("peer", "ours"), 0.0)
        for name in ("peer", "ours") if turn % 2 else ("ours", "peer"):
            pair[name] = seconds(peer if name == "peer" else ours)
        rows.append(pair)
    middle = {name: statistics.median(row[name] for row in rows) * 1e6 / images for name in ("peer", "ours")}
    ratio = statistics.median(row["peer"] / row["ours"] for row in rows)
    print(
        f"{title:<33} torchvision {middle['peer']:8.1f} us/image   cnntrain {middle['ours']:8.1f} us/image   "
        f"{ratio:5.2f} times as fast",
        flush=True,
    )


class Cifar(datasets.CIFAR10):
    """torchvision's data set over made-up images: how it answers for an image is its own."""

    def __init__(self, images: np.ndarray, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.data, self.targets = images, [0] * len(images)
        self.transform, self.target_transform = transform, None


def crop(rounds: int) -> None:
    for mode, called in (("zeros", "constant"), ("reflect", "reflect")):
        crop_with(mode, called, rounds)


def crop_with(mode: str, called: str, rounds: int) -> None:
    images = pictures(50_000, 32)
    usual = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4, padding_mode=called),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    peer = torch.utils.data.DataLoader(Cifar(images, usual), batch_size=500, shuffle=True)
    labels = torch.zeros(len(images), dtype=torch.int64)
    stored = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    loader = MemoryLoader(stored, labels, batch_size=500, device=CPU, seed=0, train=True, resident=True)
    settings = AugmentSettings(pad_crop=PadCropSettings(mode=mode), hflip=HflipSettings())
    augment = build_augment(settings, channels=3, image_size=32, mean=MEAN, std=STD, channels_last=True, cropped=False)

    def ours() -> None:
        for number, batch in enumerate(loader.batches()):
            context = BatchContext(CPU, 0, 0, number, image_size=32, indices=batch.indices)
            augment(batch.images, context)

    compare(f"crop ({mode}), flip, normalise", lambda: [None for _ in peer], ours, len(images), rounds)


def randaugment(rounds: int, size: int, batch_size: int, count: int) -> None:
    images = pictures(count, size)
    ready = [Image.fromarray(image) for image in images]
    peer = transforms.RandAugment(num_ops=2, magnitude=9)
    ((_, ours),) = build_policies(AugmentSettings(randaugment=RandAugmentSettings()))
    context = contexts(batch_size, size)
    # As the loaders give them: pixel by pixel.
    batches = torch.from_numpy(images).permute(0, 3, 1, 2).split(batch_size)

    def work() -> None:
        for number, batch in enumerate(batches):
            ours(batch, context(number))

    compare(f"RandAugment {size} px", lambda: [peer(image) for image in ready], work, count, rounds)


def mix(rounds: int) -> None:
    model, _ = build_model(ModelSettings(name="resnet18"), classes=10, channels=3, image_size=32)
    model = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    settings = SgdSettings(lr=0.01, momentum=0.9, nesterov=True, lr_base_batch=None, weight_decay=5e-4)
    optimizer, loss = optimizers.build_optimizer(settings, model, 0.01, CPU), Loss()
    inputs = torch.randn(128, 3, 32, 32).to(memory_format=torch.channels_last)
    labels, context = torch.randint(10, (128,)), contexts(128, 32)

    def step() -> None:
        loss(model(inputs), labels).div(128).backward()
        optimizer.step()
        optimizer.zero_grad()

    mixes = [
        Mix(AugmentSettings(mixup=MixupSettings()), 10),
        Mix(AugmentSettings(cutmix=CutmixSettings()), 10),
    ]
    step()
    shares = []
    for turn in range(rounds):
        whole = seconds(step)
        mixing = sum(seconds(partial(one, inputs, labels, context(turn))) for one in mixes)
        shares.append(mixing / whole)
        print(f"round {turn + 1}: ResNet-18 step {whole:.3f} s, mixup and CutMix {mixing * 1000:.2f} ms", flush=True)
    print(f"mixup and CutMix together: {statistics.median(shares):.2%} of a ResNet-18 step")


def main() -> None:
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    rounds = int(words.get("rounds", 5))
    parts = words.get("part", "crop,randaugment,photos,mix").split(",")
    set_threads(1)
    tune_malloc()
    print(f"{machine.describe_device(CPU)}, torch {torch.__version__}, one thread", flush=True)
    if "crop" in parts:
        crop(rounds)
    if "randaugment" in parts:
        randaugment(rounds, 32, 512, 4096)
    if "photos" in parts:
        randaugment(rounds, 224, 64, 256)
    if "mix" in parts:
        mix(rounds)


if __name__ == "__main__":
    main()
