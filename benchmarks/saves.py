"""What a save costs the training: written beside it, as the loop does, and on the training's own thread.

    python benchmarks/saves.py [rounds=3] [saves=4] [steps=3] [cnntrain overrides]

Each round trains `saves` times `steps` steps on one batch with no save at all, with one behind all `steps` on the
thread itself, and with the same beside. Told are the milliseconds for which a save holds the training up (its check for
NaN, the state, the copy), the first one apart, which asks for the memory too; the processor's milliseconds in it, which
other work on the machine changes less; and what a save adds to the whole, as it takes time from the processor that
trains. Medians of all saves (from smallest to largest).
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from cnntrain.config.compose import compose_settings
from cnntrain.report.run_report import Report
from cnntrain.runtime import device as machine
from cnntrain.storage import checkpoint
from cnntrain.storage.saver import Saver
from cnntrain.training import loop
from cnntrain.training.build import build_state, build_train_job
from cnntrain.training.job import TrainJob
from cnntrain.training.state import TrainState

Save = Callable[[dict[str, Any]], None]
Times = list[tuple[float, float]]


def stalls(run: TrainState, job: TrainJob, save: Save | None, saves: int, steps: int) -> tuple[Times, float]:
    """Milliseconds of the training thread in each save, by the clock and of its processor; seconds of the whole."""
    batch = next(job.loader(0).batches())
    held: Times = []
    machine.synchronize(job.device)
    begin = time.perf_counter()
    for _ in range(saves):
        for _ in range(steps):
            loop.train_step(run, job, [batch], batch.total)
        if save:
            machine.synchronize(job.device)
            clock, processor = time.perf_counter(), time.thread_time()
            run.check_finite()
            save(run.state() | {"about": job.about() | {"run_id": "benchmark"}})
            held.append(((time.perf_counter() - clock) * 1e3, (time.thread_time() - processor) * 1e3))
    machine.synchronize(job.device)
    return held, time.perf_counter() - begin


def measure(line: list[str], *, rounds: int, saves: int, steps: int) -> dict[str, Any]:
    """Milliseconds of each kind of save, in numbers."""
    with redirect_stdout(StringIO()), tempfile.TemporaryDirectory() as folder:
        report = Report(None, tensorboard=False)
        job = build_train_job(compose_settings(line), report, splits=("train", "val"))
        run = build_state(job)
        run.start_epoch()
        stalls(run, job, None, 1, 2)
        run.read_log_window()
        held: dict[str, Times] = {"thread": [], "beside": []}
        added: dict[str, list[float]] = {"thread": [], "beside": []}
        with Saver(Path(folder), job.device) as saver:
            ways: dict[str, Save] = {"thread": partial(checkpoint.save, Path(folder)), "beside": saver.save}
            for _ in range(rounds):
                _, bare = stalls(run, job, None, saves, steps)
                for way, save in ways.items():
                    times, whole = stalls(run, job, save, saves, steps)
                    saver.join()
                    held[way] += times
                    added[way].append((whole - bare) / saves * 1e3)
        size = (Path(folder) / "checkpoints" / "last" / "state.pt").stat().st_size
    found: dict[str, Any] = {"MB": round(size / 1e6), "first save beside, ms": round(held["beside"].pop(0)[0], 1)}
    for way, times in held.items():
        clock, processor = zip(*times, strict=True)
        found[f"{way}, ms held up"] = spread(clock)
        found[f"{way}, ms of the processor"] = spread(processor)
        found[f"{way}, ms added to the whole"] = spread(added[way])
    return found


def spread(values: Sequence[float]) -> str:
    """The median, and the smallest to the largest."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def main() -> None:
    numbers = {"rounds": 3, "saves": 4, "steps": 3}
    words = dict(word.split("=", 1) for word in sys.argv[1:] if word.partition("=")[0] in numbers)
    overrides = [word for word in sys.argv[1:] if word.partition("=")[0] not in numbers]
    for key, value in measure(overrides, **numbers | {key: int(value) for key, value in words.items()}).items():
        print(f"{key}: {value}")


if __name__ == "__main__":
    main()
