"""Comparisons whose runs are made by a stand-in."""

import csv
import functools
import json
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml

from cnntrain.commands import compare as command
from cnntrain.compare.plan import Combination, combinations
from cnntrain.config import overrides
from cnntrain.config.schema.commands import CompareArgs
from cnntrain.report.csv_log import COLUMNS
from cnntrain.runtime.child import cnntrain_command

QUIET = ["model=lenet5", "trainer.tensorboard=false"]  # TensorBoard's files cost seconds
Run = Callable[[Sequence[str], Callable[[], None]], int]
LISTS = [*QUIET, "optimizer=sgd,adamw", "seed=0,1"]
HOME = Path("outputs/compare/digits_lenet5")


class Trainer:
    """Stands in for the processes: writes what a run leaves behind.

    Attributes:
        runs: what was planned.
        commands: what was to be started, without the interpreter.
        ends: exit codes of the next runs; a run that is not named ends well.
        signum, said: as of a Relay.
    """

    def __init__(self, runs: Sequence[Combination], *ends: int) -> None:
        self.runs = runs
        self.commands: list[list[str]] = []
        self.ends = list(ends)
        self.signum: int | None = None
        self.said: list[str] = []

    def run(self, command: Sequence[str], watch: Callable[[], None] = lambda: None) -> int:
        words = list(command[len(cnntrain_command()) :])
        assert list(command) == cnntrain_command(*words)
        self.commands.append(words)
        code = self.ends.pop(0) if self.ends else 0
        self.signum = code - 128 if code > 128 else None
        if words[0] == "train":
            folder = Path(overrides.parse(words[-1:])[0][0].value())
            ending = re.search(r"_([0-9a-f]{8})(-\d+)?$", folder.name)
            assert ending
            digest = ending[1]
            leave(folder, next(run.plain for run in self.runs if run.digest == digest), code)
        else:
            folder = Path(words[1])
            leave(folder, yaml.safe_load((folder / "config.yaml").read_text()), code)
        return code

    @property
    def folders(self) -> list[str]:
        found = (word for command in self.commands for word in command if word.startswith(("hydra.run.dir", "outputs")))
        return [Path(word.strip("'").removeprefix("hydra.run.dir='")).name for word in found]


def leave(folder: Path, plain: dict[str, Any], code: int) -> None:
    """The files of a run; its scores depend on the optimizer and the seed alone."""
    folder.mkdir(parents=True, exist_ok=True)
    if code in (2, 3, 9):
        return
    (folder / "config.yaml").write_text(yaml.safe_dump(plain))
    if code > 128:
        return
    top1 = (0.9 if plain["optimizer"]["name"] == "adamw" else 0.8) + 0.01 * plain["seed"]
    results = {
        "status": "failed" if code else "done",
        "error": "step 3: the loss is nan",
        "val": {"top1": top1, "top5": 1.0, "loss": 0.1},
        "test": {"top1": top1 - 0.1, "top5": 1.0, "loss": 0.1},
        "best_epoch": 2 + plain["seed"],
        "images": {"train": 1293, "val": 144, "test": 360},
        "train_seconds": 30.0,
        "seconds": 35.0,
        "peak_memory_bytes": 5 * 10**8,
        "parameters": 61706,
        "trainable_parameters": 850,
    }
    (folder / "results.json").write_text(json.dumps(results))
    with open(folder / "metrics.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for epoch in (1, 2):
            scores = {"val_loss": 0.1, "val_top1": top1 - 0.1 / epoch}
            row = {"kind": "epoch", "epoch": epoch, "step": epoch * 7, "seconds": 15.0, "best": 1}
            writer.writerow(row | scores)


@functools.cache
def planned(*words: str) -> list[Combination]:
    return combinations(words)


def compare(runs: Sequence[Combination], words: Sequence[str], starter: Any, out: Path | None = None) -> int:
    args = CompareArgs(line=("compare", *words), out=out)
    return command.run(args, runs, starter=lambda: nullcontext[Any](starter))


def run(words: Sequence[str], *ends: int) -> tuple[int, Trainer]:
    """The exit code of a comparison with stand-ins, and these."""
    trainer = Trainer(planned(*words), *ends)
    return compare(trainer.runs, words, trainer), trainer
