"""Kills processes in the midst of checkpoint.save, and prints what was found afterwards as JSON.

A program of its own, started by test_checkpoint_kills.py: it forks, which only a process without threads may do.
"""

import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from states import whole

from cnntrain.storage import checkpoint
from cnntrain.storage.saver import Saver

SYSTEM_CALLS = ("mkdir", "link", "rename", "fsync", "unlink", "rmdir")


def state_at(step: int) -> dict[str, Any]:
    """A state of 400 kB whose weights tell the step."""
    weight = torch.full((100_000,), float(step))
    return whole(progress={"step": step, "epoch": step // 10}, model={"weight": weight})


def found_after(run: Path) -> dict[str, Any]:
    """The step that a resume would go on from, and the step of the best checkpoint."""
    newest = checkpoint.newest(run, lambda line: None)
    if newest is None:
        return {"newest": None}
    weight = newest[1]["model"]["weight"]
    assert weight.eq(newest[1]["progress"]["step"]).all()
    best = checkpoint.load(checkpoint.find(run))
    return {"newest": newest[1]["progress"]["step"], "best": best["progress"]["step"]}


def in_child(work: Callable[[], None]) -> int:
    """Fork a child that does the work and ends; answers its process id."""
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def save_in_turn(run: Path, first: int, tell: Callable[[int], None]) -> None:
    """Save step after step without pause, and tell each that is done."""
    for step in itertools.count(first):
        checkpoint.save(run, state_at(step), best=step % 2 == 0)
        tell(step)


def save_beside(run: Path, first: int, tell: Callable[[int], None]) -> None:
    """The same by a thread, beside which the next state comes about; what is told is done, and the next one begun."""
    saver = Saver(run, torch.device("cpu"))
    for step in itertools.count(first):
        saver.save(state_at(step), best=step % 2 == 0)
        if step > first:
            tell(step - 1)


def random_kills(
    run: Path, kills: int, work: Callable[[Path, int, Callable[[int], None]], None]
) -> list[dict[str, Any]]:
    """Kill -9 a child that saves without pause, at random times; the next child goes on from what is found."""
    draw = random.Random(0)
    run.mkdir()
    checkpoint.save(run, state_at(0), best=True)
    start = time.perf_counter()
    checkpoint.save(run, state_at(0), best=True)
    cost = time.perf_counter() - start
    step, rows = 0, []
    for _ in range(kills):
        reader, writer = os.pipe()

        def tell(step: int, writer: int = writer) -> None:
            os.write(writer, f"{step}\n".encode())

        pid = in_child(partial(work, run, step + 1, tell))
        os.close(writer)
        time.sleep(cost + draw.uniform(0, 8 * cost))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(reader) as told:
            done = [int(line) for line in told]
        found = found_after(run)
        rows.append({"done": max([step, *done]), **found})
        step = found["newest"]
    return rows


def exit_at_each_call(run: Path) -> list[dict[str, Any]]:
    """Save step after step, each in a child that dies before its first, second, third … system call."""
    run.mkdir()
    checkpoint.save(run, state_at(0), best=True)
    checkpoint.save(run, state_at(1))
    step, rows = 1, []
    for limit in itertools.count(1):
        calls = itertools.count(1)

        def dying(call: Callable[..., Any], calls: Any = calls, limit: int = limit) -> Callable[..., Any]:
            def run_or_die(*args: Any, **kwargs: Any) -> Any:
                if next(calls) == limit:
                    os._exit(9)
                return call(*args, **kwargs)

            return run_or_die

        def work(step: int = step + 1, dying: Any = dying) -> None:
            for name in SYSTEM_CALLS:
                setattr(os, name, dying(getattr(os, name)))
            checkpoint.save(run, state_at(step), best=True)

        status = os.waitstatus_to_exitcode(os.waitpid(in_child(work), 0)[1])
        rows.append({"done": step, "status": status, **found_after(run)})
        if status == 0:
            return rows
        checkpoint.save(run, state_at(step + 1))
        left = sorted(path.name for path in (run / "checkpoints").iterdir())
        rows[-1]["left"] = left
        step += 1
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    rows = {
        "random": random_kills(folder / "random", 30, save_in_turn),
        "beside": random_kills(folder / "beside", 15, save_beside),
        "calls": exit_at_each_call(folder / "calls"),
    }
    print(json.dumps(rows))
