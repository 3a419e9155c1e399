"""A made-up run that is told, and the places it is told to."""

import csv
import io
from pathlib import Path
from typing import Any

from rich.console import Console

from cnntrain.report.run_report import Report

ESCAPE = "\x1b"


def step_row(step: int, epoch: int = 1) -> dict[str, Any]:
    return {
        "step": step, "epoch": epoch, "loss": 1 / step, "top1": 0.5, "lr": 0.1,
        "images_per_second": 1234.5, "data_wait": 0.03, "grad_norm": 1.5,
    }  # fmt: skip


def epoch_row(epoch: int, step: int, best: bool = True, top5: float | None = 0.99) -> dict[str, Any]:
    return {
        "epoch": epoch, "step": step, "train_loss": 1.25, "train_top1": 0.6, "val_loss": 1.5, "val_top1": 0.5,
        "val_top5": top5, "lr": 0.1, "seconds": 12.5, "images_per_second": 1000.0, "best": best, "val_images": 7,
    }  # fmt: skip


RESULTS = {
    "status": "done", "best_epoch": 2, "val": {"top1": 0.8, "top5": 0.99, "loss": 0.61, "images": 7},
    "test": {"top1": 0.79, "top5": None, "loss": 0.62}, "seconds": 83.4, "images_per_second": 1234.5,
}  # fmt: skip


def play(report: Report, first_step: int = 1, epochs: int = 2) -> None:
    """A run of two steps per epoch."""
    report.header("lenet5 on digits", [("model", "lenet5, 61,706 parameters"), ("folder", "outputs/" + "deep/" * 30)])
    report.warn("bf16 is slow on this CPU; " + "trainer.precision=fp32 is faster " * 4)
    for epoch in range(1, epochs + 1):
        report.start_epoch(epoch, epochs, 2, 0)
        for step in (2 * epoch - 1, 2 * epoch):
            report.advance(64)
            if step >= first_step:
                report.step(step_row(step, epoch))
        report.validating(1)
        report.advance(64)
        if 2 * epoch >= first_step:
            report.epoch(epoch_row(epoch, 2 * epoch))
    report.finish(RESULTS, ["cnntrain eval " + "x" * 90, "tensorboard --logdir outputs"])


def terminal(width: int = 80) -> tuple[Console, io.StringIO]:
    screen = io.StringIO()
    return Console(
        file=screen, force_terminal=True, width=width, height=24, highlight=False, color_system="standard"
    ), screen


def plain() -> tuple[Console, io.StringIO]:
    screen = io.StringIO()
    return Console(file=screen, force_terminal=False, width=80, highlight=False), screen


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def steps_of(folder: Path) -> list[tuple[str, int]]:
    return [(row["kind"], int(row["step"])) for row in rows_of(folder)]
