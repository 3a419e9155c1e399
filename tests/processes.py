"""What each of several processes does in test_world.py: short runs of a tiny network on digits."""

import copy
import os
import socket
import time
import types
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from sklearn.datasets import load_digits
from torch import nn

from cnntrain.augment.build import Augment
from cnntrain.augment.mix import Mix
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.optimizer import SgdSettings
from cnntrain.config.schema.pieces import MixupSettings
from cnntrain.config.schema.schedule import CosineSettings
from cnntrain.config.schema.settings import Settings
from cnntrain.config.schema.trainer import GradExchange, Precision, TrainerSettings
from cnntrain.data.common import TrainData
from cnntrain.data.epoch_plan import EpochPlan
from cnntrain.data.loaders import MemoryLoader
from cnntrain.errors import DataError, Interrupted, NonFiniteError, ResourceError
from cnntrain.optim import optimizers, schedules
from cnntrain.runtime import device as machine
from cnntrain.runtime.group import joined, tells
from cnntrain.runtime.precision import grad_scaler
from cnntrain.runtime.seeds import seed_streams
from cnntrain.storage.plain import fingerprint
from cnntrain.training import loop
from cnntrain.training.ema import Ema
from cnntrain.training.job import TrainJob
from cnntrain.training.losses import Loss
from cnntrain.training.state import TrainState

CPU = torch.device("cpu")
PROCESSES = 2
SGD = SgdSettings(lr=0.1, weight_decay=1e-3, lr_base_batch=None, momentum=0.9, nesterov=True)


def environment(rank: int, size: int, port: int = 29500) -> dict[str, str]:
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    return {name: str(value) for name, value in places.items()} | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def digits(images, batch_size, world, train=True):
    found = load_digits()
    pixels = torch.tensor(found.images[:images, None] * 15, dtype=torch.uint8)
    labels = torch.tensor(found.target[:images])
    settings = {"batch_size": batch_size, "device": CPU, "seed": 1, "train": train, "world": world, "resident": True}
    return MemoryLoader(pixels, labels, **settings)


def make_run(world, *, random, seed=0):
    torch.manual_seed(seed)
    layers = [nn.BatchNorm2d(4), nn.Dropout(0.2)] if random else []
    model = nn.Sequential(nn.Conv2d(1, 4, 3, 2), *layers, nn.ReLU(), nn.Flatten(), nn.Linear(36, 10))
    seed_streams(7, world.rank)
    return TrainState(
        model=model,
        optimizer=optimizers.build_optimizer(SGD, model, SGD.lr, CPU),
        scaler=grad_scaler(Precision.fp32, CPU),
        device=CPU,
        precision=Precision.fp32,
        seed=3,
        ema=Ema(model, 0.9),
        world=world,
    )


def data_of(**loaders: Any) -> TrainData:
    """Data of which only the loaders are looked at."""
    unknown: dict[str, Any] = dict.fromkeys(("interpolation", "crop_mode", "mean", "std", "notes"))
    facts: dict[str, Any] = {"name": "", "channels": 1, "image_size": 8, "eval_size": 8, "crop": 1.0, "batch_size": 7}
    return TrainData(**unknown, **facts, classes=[*"0123456789"], fingerprint="", **loaders)


def make_job(world, batch_size, *, random, images=45, saved=None, stop=None, **settings):
    trainer = TrainerSettings(**({"epochs": 2, "log_every": 2, "save_every": 1, "accumulate": 2} | settings))
    sizes = {"batch_size": batch_size * world.size, "image_size": 8, "epochs": trainer.epochs}
    plan = EpochPlan(images, **sizes, accumulate=trainer.accumulate, processes=world.size)

    def augment(given, context):
        shift = torch.rand(len(given), 1, 1, 1, generator=context.generator) if random else 0.0
        return given.float() / 255 + shift * 0.1

    def none(*given):
        pass

    report = types.SimpleNamespace(start_epoch=none, advance=none, step=none, validating=none, epoch=none, say=none)
    loaders = {"train": digits(images, batch_size, world), "val": digits(21, batch_size, world, train=False)}
    return TrainJob(
        settings=Settings(seed=3, schedule=CosineSettings(), trainer=trainer),
        data=data_of(**loaders),
        model=None,  # that of the run
        device=CPU,
        precision=Precision.fp32,
        channels_last=False,
        notes=[],
        warnings=[],
        plan=plan,
        rates=schedules.Rates(0.1, SGD, CosineSettings(), plan),
        augment=cast(Augment, augment),
        mix=Mix(AugmentSettings(mixup=MixupSettings()), 10) if random else None,
        loss=Loss(label_smoothing=0.1),
        normalize=lambda given: given.float() / 255,
        tuning=None,
        drops=[],
        recalibrate=None,
        world=world,
        save=lambda state, best: saved.append(copy.deepcopy(state)) if saved is not None else None,
        report=report,
        stop=stop or types.SimpleNamespace(requested=False, signum=None),
    )


def prints(run):
    return fingerprint({"model": run.model.state_dict(), "ema": run.ema.state()})


def check_sums(world):
    tensors = [torch.full((2, 3), 1.0 + world.rank), torch.arange(3) * world.rank, torch.tensor(0.5)]
    world.sum_(tensors)
    copies = [torch.tensor([0.5 + world.rank]), torch.tensor([world.rank == 0, False]), torch.tensor(3 - world.rank)]
    world.copy_(copies)
    means = [torch.tensor([float(world.rank)]), torch.tensor(2.0)]
    world.mean_(means)
    with world.in_turn():
        turn = time.monotonic()
        once = world.once_here("list", lambda: [world.rank] * 3_000_000)
    return {
        "sums": [tensor.tolist() for tensor in tensors],
        "copies": [tensor.tolist() for tensor in copies],
        "means": [mean.tolist() for mean in means],
        "most": world.most(world.rank, 1 - world.rank, 0),
        "share": world.share({"rank": world.rank}),
        "gather": world.gather(world.rank),
        "turn": turn,
        "once": (len(once), set(once)),
    }


def check_training(world, random, **trainer):
    saved = []
    run, job = make_run(world, random=random), make_job(world, 4, random=random, saved=saved, **trainer)
    ended = loop.train(run, job)
    weights = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    return {"ended": ended, "print": prints(run), "weights": weights, "progress": run.state()["progress"]}, saved


def check_resume(world, saved):
    """The prints of runs that go on from the state after each step; of two at its end, so that all the way counts."""
    found = []
    for state in saved[1:-1:3]:
        run = make_run(world, random=True, seed=99)
        run.restore(world.share(state))
        loop.train(run, make_job(world, 4, random=True))
        found.append(prints(run))
    return found


def check_stop(world):
    """Only the second process hears of the signal, in the third step: the last of an epoch, validation follows."""
    stop = types.SimpleNamespace(requested=False, signum=15)
    saved = []
    run, job = make_run(world, random=True), make_job(world, 4, random=True, saved=saved, stop=stop, save_every=99)

    def advance(images):
        stop.requested |= world.rank == 1 and run.progress.step == 2

    job.report.advance = advance
    try:
        loop.train(run, job)
    except Interrupted as error:
        return {"signum": error.signum, "step": saved[-1]["progress"]["step"], "saves": len(saved)}
    return {}


def check_time(world):
    """Only the second process's clock is over."""
    limit = "0.0001s" if world.rank == 1 else "1h"
    return check_training(world, False, max_time=limit)[0]["progress"]["step"]


def check_saves(world):
    """Only the second process's clock says that a save is due."""
    _, saved = check_training(world, False, save_every="0.0001s" if world.rank == 1 else "1h")
    return [state["progress"]["step"] for state in saved[:2]]


def check_nan(world):
    """Only the second process's images are broken."""
    run, job = make_run(world, random=False), make_job(world, 4, random=False)
    if world.rank == 1:
        job = replace(job, augment=lambda given, context: given.float() * float("nan"))
    try:
        loop.train(run, job)
    except NonFiniteError as error:
        return str(error).partition(":")[0]


def check_fault(world):
    """One process fails for itself: last, as the others are left behind."""
    run, job = make_run(world, random=False), make_job(world, 4, random=False)
    if world.rank == 1:

        def augment(given, context):
            raise DataError("one file is bad")

        job = replace(job, augment=augment)
    try:
        loop.train(run, job)
    except (DataError, ResourceError) as error:
        told = tells(error)
        if world.rank == 1:
            os._exit(0)  # as a process ends, without a word to the others
        return {"error": str(error), "told": told}


def one_of_several(rank: int, port: int, folder: str) -> None:
    """What each of the processes does, and leaves in a file."""
    os.environ |= environment(rank, PROCESSES, port)
    torch.set_num_threads(1)
    with joined("cpu", False, machine.exchange_backend) as world:
        plain, _ = check_training(world, False)
        mixed, saved = check_training(world, True)
        job = make_job(world, 4, random=False)
        model = make_run(world, random=False).model
        results = {
            "sums": check_sums(world),
            "plain": plain,
            "mixed": mixed,
            "scores": job.scorer(model).score(job.data.val),
            "resumed": check_resume(world, saved),
            "stop": check_stop(world),
            "time": check_time(world),
            "saves": check_saves(world),
            "nan": check_nan(world),
        }
        torch.save(results, Path(folder) / f"{rank}.pt")
        if fault := check_fault(world):
            torch.save(fault, Path(folder) / "fault.pt")
        os._exit(0)


class Crossed(nn.Module):
    """Layers in an order other than that of their use, and more than a bucket of them; one of them is never used."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(400, 10)
        self.layers = nn.ModuleList(nn.Linear(64 if number == 2 else 400, 400) for number in range(6))
        self.idle = nn.Linear(3, 3)

    def forward(self, images):
        features = images.flatten(1)
        for number in (2, 0, 5, 1, 4, 3):
            features = self.layers[number](features).relu()
        return self.head(features)


class Opening:
    """What learns when: the head alone in the first epoch, all after that."""

    def __init__(self, model):
        self.model = model

    def enter(self, epoch):
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(epoch > 0 or name.startswith("head"))
        return []

    def watch(self):
        assert (self.model.layers[0].weight.grad is not None) == self.model.layers[0].weight.requires_grad
        assert self.model.idle.weight.grad is None

    check = state = restore = lambda self, *args, **known: None


def crossed_run(world, form=GradExchange.fp32, seed=0):
    torch.manual_seed(seed)
    model = Crossed()
    parts = {"optimizer": optimizers.build_optimizer(SGD, model, SGD.lr, CPU), "ema": Ema(model, 0.9)}
    scaler = grad_scaler(Precision.fp32, CPU)
    places = {"device": CPU, "precision": Precision.fp32, "seed": 3, "world": world, "grad_exchange": form}
    return TrainState(model=model, scaler=scaler, tuning=cast(Any, Opening(model)), **parts, **places)


def check_buckets(world, form):
    """The prints of a run and of those that went on from its states, and its weights; four processes of two images."""
    saved, run = [], crossed_run(world, form)
    loop.train(run, make_job(world, 2, random=False, images=40, saved=saved))
    resumed = []
    for state in saved[1:-1:2]:
        again = crossed_run(world, form, seed=99)
        again.restore(world.share(state))
        loop.train(again, make_job(world, 2, random=False, images=40))
        resumed.append(prints(again))
    weights = {name: value.clone() for name, value in run.model.state_dict().items()}
    return {"print": prints(run), "resumed": resumed, "weights": weights}


def one_of_four(rank: int, port: int, folder: str) -> None:
    """What each of four processes does, and leaves in a file."""
    os.environ |= environment(rank, 4, port)
    torch.set_num_threads(1)
    with joined("cpu", False, machine.exchange_backend) as world:
        found = {form.value: check_buckets(world, form) for form in GradExchange}
        torch.save(found, Path(folder) / f"{rank}.pt")
