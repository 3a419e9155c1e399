"""`trainer.profile=true`: what a few steps of a run do, as a trace in its folder and a list of what takes longest."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import schedule

from cnntrain.report.run_report import Report
from cnntrain.runtime import device as machine
from cnntrain.runtime.launches import profiler
from cnntrain.text import align_columns, one_line, printable, short_path, shorten
from cnntrain.training.job import TrainJob

TRACE = "trace.json.gz"
SKIPPED, WARM, STEPS = 10, 2, 4  # steps: that may compile and tune, in which the profiler starts, of the trace
LONGEST = 10  # entries of the list
WIDEST = 44  # columns of a name
BETWEEN = "between operations"  # what is left of a step: Python


@contextmanager
def profiled(folder: Path, job: TrainJob, report: Report) -> Iterator[TrainJob]:
    """The job with a profiler behind its steps, where its settings ask for one; one process of several has it."""
    if not (job.trainer.profile and job.world.is_first):
        yield job
        return
    watch = _Profile(folder / TRACE, job.device, report)
    try:
        yield replace(job, after_step=watch.step)
    finally:
        watch.stop()
    if not watch.is_done:
        last = SKIPPED + WARM + STEPS
        report.warn(f"trainer.profile: no trace, as fewer than {last} steps were left to train; raise trainer.epochs")


class _Profile:
    """Follows the first steps; no fault of it ends a training."""

    def __init__(self, path: Path, device: torch.device, report: Report) -> None:
        self._path, self._device, self._report = path, device, report
        self.is_done = False
        steps = schedule(wait=SKIPPED, warmup=WARM, active=STEPS, repeat=1)
        self._profile: Any = profiler(device, schedule=steps, on_trace_ready=self._tell)
        self._attempt(self._profile.start)

    def step(self) -> None:
        """A step of the run is done."""
        if self._profile:
            self._attempt(self._profile.step)
        if self.is_done:
            self.stop()

    def stop(self) -> None:
        """No more steps; more than once is fine."""
        watch, self._profile = self._profile, None
        if watch:
            with suppress(RuntimeError):
                watch.stop()

    def _attempt(self, work: Any) -> None:
        try:
            work()
        except Exception as error:
            self._profile, self.is_done = None, True
            self._report.warn(f"trainer.profile: no trace: {printable(one_line(error))}; the training goes on")

    def _tell(self, found: Any) -> None:
        if self.is_done or not self._profile:
            return
        self.is_done = True
        with TemporaryDirectory(prefix=".tmp-", dir=self._path.parent) as own:  # where nobody has planted a link
            found.export_chrome_trace(aside := os.path.join(own, TRACE))
            os.replace(aside, self._path)
        for line in _table(found.key_averages(), machine.is_async(self._device)):
            self._report.say(line, copied=True)
        self._report.say(f"wrote {printable(short_path(self._path))}, for ui.perfetto.dev", copied=True)


def _table(entries: Any, of_device: bool) -> list[str]:
    """Which operations take longest by themselves: on the device where it works behind the host, else here."""
    key = "self_device_time_total" if of_device else "self_cpu_time_total"
    operations = [entry for entry in entries if entry.device_type == torch.autograd.DeviceType.CPU]
    ranked = sorted(operations, key=lambda entry: -getattr(entry, key))
    whole = sum(getattr(entry, key) for entry in ranked) or 1
    rows = [("profile of a step", "share", "ms", "calls")]
    for entry in ranked[:LONGEST]:
        time = getattr(entry, key)
        name = BETWEEN if entry.key.startswith("ProfilerStep") else shorten(printable(entry.key), WIDEST)
        rows.append((name, f"{100 * time / whole:.1f}%", f"{time / STEPS / 1e3:.3f}", f"{entry.count / STEPS:g}"))
    return align_columns(rows)
