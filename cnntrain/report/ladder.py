"""The ladder of `cnntrain bench` in words: a table of 80 columns, and one sentence of advice."""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cnntrain.config.schema.trainer import Precision
from cnntrain.data.loaders import StreamLoader
from cnntrain.runtime.device_memory import shares_memory
from cnntrain.runtime.threads import available_cores
from cnntrain.text import align_columns, rate
from cnntrain.training.job import TrainJob
from cnntrain.training.ladder import LOADER, LOOP, Rung

ENOUGH = 0.95  # of the limit: what is lost below it is worth a word
WIDE = 0.2  # between the rounds' shares of the limit: what lies further apart tells nothing
IDLE = 0.15  # of the device's time
SHORT = 0.02  # seconds of a step, of which what is done once for each batch takes a large part
POLICIES = ("randaugment", "trivialaugment", "autoaugment", "augmix")


@dataclass(frozen=True)
class Findings:
    """What was measured of a config.

    Attributes:
        rungs: from the bare step to the loop.
        save_seconds: for which a save stops the training.
        saves: how many there are to a step.
        peak_memory: bytes, of the device or of the process.
    """

    rungs: Sequence[Rung]
    save_seconds: float
    saves: float
    peak_memory: int

    @property
    def save_share(self) -> float:
        """The part of the time that saves take."""
        saving = self.save_seconds * self.saves
        return saving / (saving + self.rungs[LOOP].second)

    @property
    def share(self) -> float:
        """What the loop with its saves keeps of the bare step: the median of the rounds."""
        return statistics.median(self.rungs[LOOP].shares(self.rungs[0])) * (1 - self.save_share)

    @property
    def idle(self) -> float | None:
        """The part of the loop's time in which the device has nothing to do; None: the device is the host."""
        loop = self.rungs[LOOP]
        return None if loop.load.busy is None else max(0.0, 1 - loop.load.busy / loop.second)

    def as_plain(self) -> dict[str, Any]:
        """For a JSON file: seconds are of a step, shares of the bare step's images/s."""
        unit = "operations" if self.idle is None else "launches"
        rungs = []
        for rung in self.rungs:
            shares = rung.shares(self.rungs[0])
            rungs.append(
                {"name": rung.name, "images_per_second": rung.rate, "seconds": rung.second}
                | {"processor_seconds": statistics.median(rung.processor_seconds)}
                | {"share": statistics.median(shares), "shares": shares, unit: rung.load.launches}
            )
        return {
            "rungs": rungs,
            "share": self.share,
            "save_seconds": self.save_seconds,
            "save_share": self.save_share,
            "device_idle": self.idle,
            "peak_memory_bytes": self.peak_memory,
        }


def table(found: Findings) -> list[str]:
    """A row for each rung, and what the whole loop keeps of the first one."""
    unit = "operations" if found.idle is None else "launches"
    rows: list[Sequence[str]] = [("a step", "images/s", "of limit", "from", "to", "ms", unit)]
    for rung in found.rungs:
        shares = rung.shares(found.rungs[0])
        spread = [_tenths(value) for value in (statistics.median(shares), min(shares), max(shares))]
        step = f"{1e3 * rung.second:,.2f}"
        rows.append((rung.name, rate(rung.rate), *spread, step, f"{rung.load.launches:,}"))
    whole, kept = found.rungs[LOOP], 1 - found.save_share
    seconds = f"{1e3 * whole.second / kept:,.2f}"
    rows.append(("+ saves", rate(whole.rate * kept), _tenths(found.share), "", "", seconds, ""))
    return [line.rstrip() for line in align_columns(rows)]


def advice(found: Findings, job: TrainJob) -> str:
    """One sentence: what holds this config back most, and the key that changes it."""
    shares = [after.shares(before) for before, after in itertools.pairwise(found.rungs)]  # of the rung below
    losses = [1 - statistics.median(kept) for kept in shares] + [found.save_share]
    worst = max(range(len(losses)), key=losses.__getitem__)
    of_limit = found.rungs[LOOP].shares(found.rungs[0])
    # Nothing is faster than the limit: what seems to be, of one round or of many, is noise.
    if max(of_limit) > max(1.0, min(1.0, *of_limit) + WIDE):
        return _about_noise(found.rungs[LOOP], of_limit, "bare step")
    if found.share < ENOUGH and worst < LOOP and len(shares[worst]) > 1 and max(shares[worst]) >= 1:
        return _about_noise(found.rungs[worst + 1], shares[worst], "row above it")
    if found.share >= ENOUGH or losses[worst] < (1 - ENOUGH) / 2:
        return _about_the_step(found, job)
    lost = _tenths(losses[worst])
    if worst == 0:
        return _about_augmentation(found, job, lost)
    if worst + 1 == LOADER:
        return _about_loading(job, lost)
    if worst + 1 == LOOP:
        return f"counting, log rows and the bar take {lost}: a larger data.batch_size has fewer steps to tell of" + (
            ", trainer.log_every=null fewer rows" if job.trainer.log_every else ""
        )
    return f"saves take {lost}: save less often, with trainer.save_every=5m"


def _about_noise(rung: Rung, shares: Sequence[float], what: str) -> str:
    least, most = _tenths(min(shares)), _tenths(max(shares))
    keeps = (
        f"from round to round, '{rung.name}' keeps {least} to {most}"
        if len(shares) > 1
        else (f"'{rung.name}' keeps {most}")
    )
    return (
        f"too noisy to tell what to change: {keeps} of the {what}; close other programs, or raise rounds, such as "
        f"rounds={3 * len(shares)}"
    )


def _about_the_step(found: Findings, job: TrainJob) -> str:
    trainer = job.trainer
    loop = f"the loop keeps {_tenths(found.share)} of the bare step: only the network can be faster"
    if found.idle is not None and found.idle > IDLE:
        batch = f"data.batch_size={2 * job.data.batch_size}"
        more = "" if trainer.compile else ", or trainer.compile=true"
        return f"the GPU idles {_tenths(found.idle)} of the time, as its kernels are short: try {batch}{more}"
    if not shares_memory(job.device):
        if job.precision in (Precision.fp32, Precision.tf32):
            return f"{loop}, by trainer.precision=auto"
        return f"{loop}" + ("" if trainer.compile else ", by trainer.compile=true or a smaller data.image_size")
    if torch.get_num_threads() < available_cores():
        return f"{loop}, by trainer.threads={available_cores()}, as this machine has more cores"
    return f"{loop}, by a smaller data.image_size or another model"


def _about_augmentation(found: Findings, job: TrainJob, lost: str) -> str:
    policy = next((name for name in POLICIES if name in job.settings.augment.pieces), None)
    if not shares_memory(job.device) or found.rungs[0].second < SHORT:
        return f"augmentation takes {lost}: a larger data.batch_size spreads its calls over more images"
    if policy:
        return f"augmentation takes {lost}: try augment without {policy}"
    return f"augmentation takes {lost}: try fewer pieces in augment"


def _about_loading(job: TrainJob, lost: str) -> str:
    if not isinstance(job.data.train, StreamLoader):
        return f"gathering and sending images takes {lost}: try a larger data.batch_size"
    workers, cores = job.data.train.workers, available_cores()
    more = f"data.workers={cores}, or " if workers < cores else ""
    return f"waiting for decoded images takes {lost}: try {more}images made smaller once by cnntrain pack"


def _tenths(share: float) -> str:
    return f"{100 * share:.1f}%"
