"""Kills trainings on shards at random moments and resumes them; prints what each of their steps has shown, as JSON.

A program of its own, started by data/test_shard_kills.py: it forks, which only a process without threads may do.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "data"))

from shard_files import write_shards

from cnntrain import cli
from cnntrain.storage import checkpoint
from cnntrain.training import loop

PAUSE = 0.01  # seconds of a step: so that there are many moments to be killed at
WORDS = ["data=webdataset", "data.root=shards", "data.buffer=20", "data.loader=stream", "data.workers=2"]
WORDS += ["data.image_size=8", "data.batch_size=4", "data.val=0", "data.mean=[0.5]", "data.std=[0.5]", "model=softmax"]
WORDS += ["augment=[resized_crop,hflip]", "schedule=constant", "trainer.threads=1", "trainer.tensorboard=false"]


def in_child(words: Sequence[str], log: Path, pause: float) -> int:
    """Fork a child that trains and notes what each step has shown; answers its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        # Whoever kills the child knows by the file what it has done: one write is whole or not there.
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        with open(log.with_suffix(".txt"), "a") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        train_step: Callable[..., None] = loop.train_step

        def noted(run: Any, job: Any, group: Any, *rest: Any) -> None:
            batches = list(group)
            step, epoch = run.progress.step, run.progress.epoch
            time.sleep(pause)
            train_step(run, job, batches, *rest)
            indices = [index for batch in batches for index in batch.indices.tolist()]
            names = [Path(job.data.train.name(index)).name for index in indices]
            row = {"step": step, "epoch": epoch, "names": names, "pid": os.getpid()}
            os.write(file, f"{json.dumps(row)}\n".encode())

        loop.train_step = noted  # type: ignore[assignment]
        status = cli.main(list(words))
    finally:
        os._exit(status)


def rows_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def train(folder: Path, epochs: int, kills: int, save_every: int) -> dict[str, Any]:
    """Train to the end, killed so many times on the way.

    Returns:
        "rows" of all steps that were taken; "kills": of each the steps that its process had taken; the exit code;
        "weights" of the end, as text.
    """
    draw, log, run = random.Random(0), folder / "log.jsonl", folder / "run"
    words = [*WORDS, f"trainer.epochs={epochs}", f"trainer.save_every={save_every}", f"hydra.run.dir={run}"]
    done: list[int] = []
    folder.mkdir()
    start = time.perf_counter()
    while True:
        is_last = len(done) == kills
        is_begun = (run / "config.yaml").exists()
        pid = in_child(["resume", str(run)] if is_begun else words, log, 0 if is_last else PAUSE)
        if is_last:
            break
        before = time.perf_counter()
        if (len(done) + 1) % 3:  # the others are killed at any moment, the start included
            while len(rows_of(log)) == sum(done) and time.perf_counter() - before < 60:
                time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.3))
        os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL, log.with_suffix(".txt").read_text()
        done.append(len(rows_of(log)) - sum(done))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0, log.with_suffix(".txt").read_text()
    state = checkpoint.load(run / "checkpoints" / "last")
    weights = {name: value.tolist() for name, value in state["model"].items()}
    return {"rows": rows_of(log), "kills": done, "weights": weights, "seconds": time.perf_counter() - start}


if __name__ == "__main__":
    home, kills, epochs, save_every = Path(sys.argv[1]), *map(int, sys.argv[2:])
    os.chdir(home)
    os.environ["XDG_CACHE_HOME"] = str(home / "cache")
    write_shards(home / "shards", 6, 8)
    whole = train(home / "whole", epochs, 0, save_every)
    print(json.dumps({"whole": whole, "killed": train(home / "killed", epochs, kills, save_every)}))
