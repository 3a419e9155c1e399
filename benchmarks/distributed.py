"""What our loop costs beside a bare loop of torch's DistributedDataParallel, in the same processes and in turn.

    python benchmarks/distributed.py [processes=2] [rounds=5] [steps=20] [cnntrain overrides]

The bare loop is what torch's tutorial has: DDP with its defaults around the same network, forward, loss, backward and
optimizer on one fixed batch in memory. Ours decodes, augments, counts, tells flags, averages batch norms and exchanges
so that a resume has the same bits. All processes share this machine's cores, over gloo on a CPU, NCCL on GPUs.
"""

import copy
import os
import socket
import statistics
import sys
import time
import warnings
from dataclasses import replace

import torch
from torch.nn.parallel import DistributedDataParallel

from cnntrain.config.compose import compose_settings
from cnntrain.optim import optimizers
from cnntrain.report.run_report import Report
from cnntrain.runtime import device as machine
from cnntrain.runtime.group import joined
from cnntrain.runtime.precision import autocast
from cnntrain.runtime.world import World
from cnntrain.training import loop
from cnntrain.training.build import build_state, build_train_job
from cnntrain.training.timing import Clock


def main() -> None:
    words = dict(word.split("=", 1) for word in sys.argv[1:] if word.split("=")[0] in ("processes", "rounds", "steps"))
    overrides = [word for word in sys.argv[1:] if word.split("=")[0] not in words]
    count, rounds, steps = (int(words.get(*item)) for item in (("processes", 2), ("rounds", 5), ("steps", 20)))
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    torch.multiprocessing.spawn(measure, (count, port, rounds, steps, overrides), nprocs=count)


def measure(rank: int, count: int, port: int, rounds: int, steps: int, overrides: list[str]) -> None:
    """One of the processes."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"}
    warnings.simplefilter("ignore")
    settings = compose_settings([*overrides, "trainer.epochs=100000"])
    with joined(settings.trainer.device, settings.trainer.deterministic, machine.exchange_backend) as world:
        compare(world, settings, rounds, steps)


def compare(world: World, settings, rounds: int, steps: int) -> None:
    """Print images/s of both loops in each round, and the shares that ours keeps."""
    job = build_train_job(settings, Report(None, tensorboard=False), world=world, splits=("train",))
    run = build_state(job)
    model = copy.deepcopy(run.model)
    optimizer = optimizers.build_optimizer(settings.optimizer, model, job.rates.lr, run.device)
    batch = next(job.data.train.batches())
    inputs = job.augment(batch.images, job.context(0, 0, batch.indices))
    bare = DistributedDataParallel(model.train())

    def bare_steps() -> None:
        for _ in range(steps):
            with autocast(run.precision, run.device):
                logits = bare(inputs)
            torch.nn.functional.cross_entropy(logits.float(), batch.labels).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def our_steps() -> None:
        progress, left = run.progress, steps
        while left > 0:
            limited = replace(
                job, settings=replace(settings, trainer=replace(job.trainer, max_steps=progress.step + left))
            )
            before = progress.step
            loop.train_epoch(run, limited, Clock(0.0, None))
            left -= progress.step - before
            if progress.batch >= job.plan.batches(progress.epoch):
                progress.epoch, progress.batch = progress.epoch + 1, 0

    shares, processor = [], []
    for turn in range(-1, rounds):  # the first one warms up
        seconds = {}
        for work in (bare_steps, our_steps) if turn % 2 else (our_steps, bare_steps):
            world.wait()
            start, used = time.perf_counter(), time.process_time()
            work()
            machine.synchronize(run.device)
            world.wait()
            seconds[work] = time.perf_counter() - start, time.process_time() - used
        rates = [steps * len(batch.labels) * world.size / seconds[work][0] for work in (bare_steps, our_steps)]
        if turn >= 0 and world.is_first:
            shares.append(rates[1] / rates[0])
            processor.append(seconds[bare_steps][1] / seconds[our_steps][1])
            print(f"round {turn + 1}: bare {rates[0]:,.1f}  ours {rates[1]:,.1f} images/s", flush=True)
    if world.is_first:
        what = f"{settings.model.name}, {world.size} processes of {len(batch.labels)} images, {run.device.type}"
        print(f"{what}, torch {torch.__version__}")
        for name, found in (("speed", shares), ("processor time, theirs to ours", processor)):
            print(f"{name}: {statistics.median(found):.1%} (from {min(found):.1%} to {max(found):.1%})")


if __name__ == "__main__":
    main()
