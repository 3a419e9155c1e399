"""What the training loop costs beside the arithmetic: the real loop against the bare step, in turn, in one process.

    python benchmarks/loop.py [rounds=5] [steps=20] [cnntrain overrides]

The bare step is forward, loss, backward and optimizer on one fixed batch that lies in memory as normalised floats: same
network, batch, optimizer, precision, threads and memory layout, no data, no augmentation, no report. The real loop
decodes, augments, counts and reports as in any run. Each round times `steps` steps of both, in changing order;
printed are images/s (median of the rounds) and the share of the limit (median of the rounds' ratios).
"""

import copy
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import torch

from cnntrain.config.compose import compose_settings
from cnntrain.optim import optimizers
from cnntrain.report.run_report import Report
from cnntrain.runtime import device as machine
from cnntrain.training import loop
from cnntrain.training.build import build_state, build_train_job
from cnntrain.training.job import TrainJob
from cnntrain.training.state import TrainState
from cnntrain.training.timing import Clock


def bare_steps(job: TrainJob, run: TrainState, steps: int) -> float:
    """Seconds for `steps` steps on one fixed batch."""
    images, labels, indices, _ = next(job.data.train.batches())
    inputs = job.augment(images, job.context(0, 0, indices))
    run.model.train()

    def step() -> None:
        with machine.autocast(run.precision, run.device):
            logits = run.forward(inputs)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        run.scaler.scale(loss).backward()
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.optimizer.zero_grad(set_to_none=True)

    step()
    machine.synchronize(job.device)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    machine.synchronize(job.device)
    return time.perf_counter() - start


def real_steps(run: TrainState, job: TrainJob, steps: int) -> tuple[float, int]:
    """Seconds for `steps` steps of the real loop, and its images; goes on where the last call stopped."""
    progress = run.progress
    trainer = replace(job.trainer, max_steps=progress.step + steps)
    limited = replace(job, settings=replace(job.settings, trainer=trainer))
    images, start, train = 0, time.perf_counter(), job.data.train
    while progress.step < limited.total_steps(progress):
        before = progress.batch
        loop.train_epoch(run, limited, Clock(0.0, None))
        images += min(progress.batch * train.batch_size, train.images) - before * train.batch_size
        if progress.batch >= limited.plan.batches(progress.epoch):
            progress.epoch, progress.batch = progress.epoch + 1, 0
    machine.synchronize(run.device)
    return time.perf_counter() - start, images


def main() -> None:
    words = dict(word.split("=", 1) for word in sys.argv[1:] if word.startswith(("rounds=", "steps=")))
    rounds, steps = int(words.get("rounds", 5)), int(words.get("steps", 20))
    overrides = [word for word in sys.argv[1:] if not word.startswith(("rounds=", "steps="))]
    settings = compose_settings([*overrides, "trainer.epochs=100000"])
    job = build_train_job(settings, Report(None, tensorboard=False), splits=("train", "val"))
    run = build_state(job)
    bare_run = TrainState(
        model=copy.deepcopy(run.model),
        optimizer=run.optimizer,
        scaler=machine.grad_scaler(run.precision, run.device),
        device=run.device,
        precision=run.precision,
        seed=0,
        compiler=run.compiler,
    )
    bare_run.optimizer = optimizers.build_optimizer(settings.optimizer, bare_run.model, job.rates.lr, run.device)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        with redirect_stdout(StringIO()):
            report = Report(Path(folder), tensorboard=settings.trainer.tensorboard)
        reported = replace(job, report=report)
        with redirect_stdout(StringIO()):
            real_steps(run, reported, 3)
        for turn in range(rounds):
            order = ("bare", "real") if turn % 2 else ("real", "bare")
            rates = {}
            for kind in order:
                with redirect_stdout(StringIO()):
                    if kind == "bare":
                        batch = min(job.data.batch_size, job.data.train.images)
                        rates[kind] = steps * batch / bare_steps(job, bare_run, steps)
                    else:
                        seconds, images = real_steps(run, reported, steps)
                        rates[kind] = images / seconds
            rows.append(rates)
            print(f"round {turn + 1}: bare {rates['bare']:,.1f}  real {rates['real']:,.1f} images/s", flush=True)
        report.close()
    shares = [row["real"] / row["bare"] for row in rows]
    print(
        f"{settings.model.name} on {settings.data.name}, {job.data.image_size} px, batch {job.data.batch_size}, "
        f"{machine.describe_device(job.device)}, {run.precision.value}, torch {torch.__version__}"
    )
    for kind in ("bare", "real"):
        print(f"{kind}: {statistics.median(row[kind] for row in rows):,.1f} images/s")
    print(f"share of the limit: {statistics.median(shares):.1%} (from {min(shares):.1%} to {max(shares):.1%})")


if __name__ == "__main__":
    main()
