"""`trainer.profile=true`: what a few steps of a run do, as a trace in its folder and a list of what takes longest."""

import os
import re
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import schedule

from cnntrain.report.run_report import Report
from cnntrain.runtime import device as machine
from cnntrain.runtime.device_load import profiler
from cnntrain.text import align_columns, counted, one_line, printable, short_path, shorten
from cnntrain.training.job import TrainJob
from cnntrain.training.state import Progress

TRACE = "trace.json.gz"
SKIPPED, WARM, STEPS = 10, 2, 4  # steps: that may compile and tune, the last of them with the profiler on; of the trace
LONGEST = 10  # entries of the list
WIDEST = 44  # columns of a name
_GRAPH = re.compile(r"## Call CompiledFxGraph \w+ ##")  # the rest is a hash
BETWEEN = "between operations (Python)"  # what is left of a step


@contextmanager
def profiled(folder: Path, job: TrainJob, progress: Progress, report: Report) -> Iterator[TrainJob]:
    """The job with a profiler behind its steps, where its settings ask for one; one process of several has it.

    Args:
        progress: of the run, which is about to train.
    """
    if not (job.trainer.profile and job.world.is_first):
        yield job
        return
    first, count = traced_steps(job, progress)
    if not count:
        report.warn(f"trainer.profile: no trace, as {_why_none(job, progress)}")
        yield job
        return
    watch = _Profile(folder / TRACE, job.device, report, first, count)
    try:
        yield replace(job, after_step=watch.step)
    finally:
        watch.stop()
    if not watch.is_done:
        report.warn(f"trainer.profile: no trace, as the training has ended before {first + count} steps")


def traced_steps(job: TrainJob, progress: Progress) -> tuple[int, int]:
    """The first step of the trace, counted from 0 at the run's progress, and how many there are; (0, 0): none fit.

    Nothing but steps is traced: all of them lie in one epoch, behind its first step, which begins before it does.
    """
    left, begin, batch = job.total_steps(progress) - progress.step, 0, progress.batch
    for epoch in range(progress.epoch, job.trainer.epochs):
        end = begin - (-(job.plan.batches(epoch) - batch) // job.trainer.accumulate)
        first, count = max(begin + 1, SKIPPED), min(STEPS, job.plan.steps(epoch) - 1)
        if not count or first + count > left:
            break
        if first + count <= end:
            return first, count
        begin, batch = end, 0
    return 0, 0


def _why_none(job: TrainJob, progress: Progress) -> str:
    if job.plan.steps(progress.epoch) == 1:
        return "an epoch has one step, and its first is never traced; make data.batch_size smaller"
    total = job.total_steps(progress)
    key = "max_steps" if total == job.trainer.max_steps else "epochs"
    return (
        f"{counted(total - progress.step, 'step')} to train are too few: {SKIPPED} pass, and {STEPS} of one epoch, "
        f"behind its first, are traced; raise trainer.{key}"
    )


class _Profile:
    """Follows the first steps; no fault of it ends a training."""

    def __init__(self, path: Path, device: torch.device, report: Report, first: int, count: int) -> None:
        self._path, self._device, self._report, self._count = path, device, report, count
        self.is_done = False
        self._busy = (first - WARM, first, first + count)  # after so many steps the profiler itself takes long
        self._done = 0
        steps = schedule(wait=first - WARM, warmup=WARM, active=count, repeat=1)
        self._profile: Any = profiler(device, schedule=steps, on_trace_ready=self._tell)
        self._attempt(self._profile.start)

    def step(self) -> float:
        """A step of the run is done; the seconds that the profiler took, where they are many."""
        self._done += 1
        if not self._profile:
            return 0.0
        is_busy = self._done in self._busy
        if is_busy:
            machine.synchronize(self._device)
        start = time.perf_counter()
        self._attempt(self._profile.step)
        if self.is_done:
            self.stop()
        return time.perf_counter() - start if is_busy else 0.0

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
        backward = _backward_graphs(found.events())
        for line in _table(found.key_averages(), self._count, machine.is_async(self._device), backward):
            self._report.say(line, copied=True)
        self._report.say(f"wrote {printable(short_path(self._path))}, for ui.perfetto.dev", copied=True)


def _backward_graphs(events: Iterable[Any]) -> set[str]:
    """The names of the compiled graphs that the backward pass calls: torch gives them no other mark."""
    found = set()
    for event in events:
        above = event.cpu_parent if _GRAPH.match(event.name) else None
        while above and "Backward" not in above.name:
            above = above.cpu_parent
        found |= {event.name} if above else set()
    return found


def _table(entries: Any, steps: int, of_device: bool, backward: Collection[str] = ()) -> list[str]:
    """Which operations take longest by themselves: on the device where it works behind the host, else here.

    Args:
        backward: the names of the compiled graphs of the backward pass.
    """
    key = "self_device_time_total" if of_device else "self_cpu_time_total"
    operations = [entry for entry in entries if entry.device_type == torch.autograd.DeviceType.CPU]
    ranked = sorted(operations, key=lambda entry: -getattr(entry, key))
    whole = sum(getattr(entry, key) for entry in ranked) or 1
    rows = [("profile of a step", "share", "ms", "calls")]
    for entry in ranked[:LONGEST]:
        time = getattr(entry, key)
        graph = f"compiled {'backward' if entry.key in backward else 'forward'} pass"
        name = (
            BETWEEN
            if entry.key.startswith("ProfilerStep")
            else shorten(printable(_GRAPH.sub(graph, entry.key)), WIDEST)
        )
        rows.append((name, f"{100 * time / whole:.1f}%", f"{time / steps / 1e3:.3f}", f"{entry.count / steps:g}"))
    return align_columns(rows)
