"""What a run tells: to the terminal, metrics.csv, train.log and TensorBoard, behind one small class."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cnntrain.config.schema.scores import MAIN, TITLES, main_score
from cnntrain.errors import FileSystemError
from cnntrain.report.csv_log import CsvLog
from cnntrain.report.terminal import Screen
from cnntrain.runtime.stopwatch import PHASES
from cnntrain.storage.atomic import file_system_error, open_own
from cnntrain.storage.run_folder import LOG, WARNING
from cnntrain.text import (
    clock,
    number,
    one_line,
    percent,
    printable,
    rate,
    short_path,
)

if TYPE_CHECKING:
    import torch
    from rich.console import Console
    from torch import nn

    from cnntrain.finetune.audit import GroupRow
    from cnntrain.report.tensorboard import TensorBoardLog

STEP_TAGS = ("loss", "top1", "lr", "images_per_second", "data_wait", "grad_norm")
EPOCH_TAGS = {
    "val/loss": "val_loss",
    "val/top1": "val_top1",
    "val/top5": "val_top5",
    "val/map": "val_map",
    "probe/loss": "probe_loss",
    "probe/top1": "probe_top1",
    "probe/map": "probe_map",
    "epoch/train_loss": "train_loss",
    "epoch/train_top1": "train_top1",
    "epoch/seconds": "seconds",
    "epoch/images_per_second": "images_per_second",
    **{f"time/{phase}": f"seconds_{phase}" for phase in PHASES},
}


class Report:
    """Tells of one run. Rows hold plain numbers: nothing here reads a tensor that a device is still working on.

    Args:
        folder: the run folder, or None to write no files (and no TensorBoard).
        tensorboard: write an event file too.
        resume_step: the run goes on after this step: rows and events of later steps go. None: the run is new.
        ended: that step was its end, and TensorBoard has been told so.
        top5: there are more than five classes; else that column of metrics.csv is empty.
        score: the one of scores.MAIN that judges the run.
        console: where to write; the standard output where None.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        tensorboard: bool,
        resume_step: int | None = None,
        ended: bool = False,
        top5: bool = True,
        score: str = MAIN[0],
        console: "Console | None" = None,
    ) -> None:
        self._folder = folder
        self._epochs = 0
        self._step = resume_step or 0
        self._told_step = resume_step if ended else None
        self._failed: set[str] = set()
        self._csv = self._log = None
        if folder:
            self._log = self._open_log(folder / LOG)
            try:
                empty = () if top5 else ("val_top5",)
                self._csv = CsvLog(folder / "metrics.csv", resume_step=resume_step, empty=empty, score=score)
            except FileSystemError:
                self._log.close()
                raise
        self._screen = Screen(self._log, console)
        self._screen.bar.has_top1 = score == "top1"
        self._tensorboard: TensorBoardLog | None = None
        if folder and tensorboard:
            self.attempt("curves", lambda: self._open(folder, resume_step, score))
        self.advance = self._screen.advance  # (images): once for each micro-batch, so it is cheap

    def _open_log(self, path: Path) -> TextIO:
        try:
            return open(open_own(path, os.O_WRONLY | os.O_APPEND), "a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise file_system_error(path, error) from error

    def _open(self, folder: Path, resume_step: int | None, score: str) -> None:
        from cnntrain.report.tensorboard import TensorBoardLog

        self._tensorboard = TensorBoardLog(folder, resume_step=resume_step)
        self._tensorboard.layout(self._step, score)

    def _log_to(self, what: str, write: "Callable[[TensorBoardLog], object]") -> None:
        """The only way to TensorBoard."""
        if log := self._tensorboard:
            self.attempt(what, lambda: write(log))

    def draw(self, what: str, work: "Callable[[TensorBoardLog, int], object]") -> None:
        """Let somebody else write to TensorBoard, given the step in hand."""
        if self._step != self._told_step:
            self._log_to(what, lambda log: work(log, self._step))

    def attempt(self, what: str, work: Callable[[], object]) -> None:
        """Draw or log something, or prepare it. No fault of that ends a training: it is said, once of each thing."""
        try:
            work()
        except Exception as error:
            if isinstance(error, OSError) and error.errno:  # of the system; those of Pillow are of the picture alone
                self._close(self._tensorboard)
                self._tensorboard = None
                place = f"{printable(error.filename)}: " if error.filename else ""
                self.warn(f"nothing more for TensorBoard: {place}{error.strerror or error}; the training goes on")
            elif what not in self._failed:
                self._failed.add(what)
                self.warn(f"no {what} for TensorBoard: {one_line(error)}; the training goes on")

    def say(self, line: str, *, copied: bool = False, style: str = "") -> None:
        """A line for the user; the bar stays below it. `copied`: never broken, so that it can be copied."""
        self._screen.line(line, style, copied=copied)

    def warn(self, line: str) -> None:
        self._screen.line(f"{WARNING}{line}", "yellow")

    def note(self, text: str) -> bool:
        """Show a text in the bar, in place of its numbers; False where there is no bar.

        A signal handler may call it, as nothing is written here: a write may meet another one half done.
        """
        self._screen.bar.note = text
        return self._screen.has_bar

    def header(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """What will be done, as named facts in a frame."""
        self._screen.frame(title, rows)

    def audit(self, rows: Sequence["GroupRow"]) -> None:
        """What of each layer group learns, as a tree, and for TensorBoard."""
        from cnntrain.report import audit

        for line, style in audit.tree(rows, self._screen.width):
            self._screen.line(line, style, copied=True)
        self._log_to("layer groups", lambda log: log.text("finetune/audit", audit.markdown(rows), self._step))

    def start_epoch(self, epoch: int, epochs: int, batches: int, done: int) -> None:
        """The bar of an epoch (from 1) of `batches` micro-batches, `done` of them trained before."""
        self._epochs = epochs
        self._screen.bar.start_epoch(epoch, epochs, batches, done)
        self._screen.start_bar()

    def validating(self, batches: int, phase: str = "validating") -> None:
        """The bar of an evaluation of `batches` micro-batches."""
        self._screen.bar.start_phase(phase, batches)
        self._screen.start_bar()

    def end_phase(self) -> None:
        """Take the bar away, until the next phase."""
        self._screen.stop_bar()
        self._screen.bar.end_phase()

    def step(self, row: dict[str, Any]) -> None:
        """A log row: step, epoch, loss, lr, images_per_second, data_wait (0..1), grad_norm; of single labels, top1."""
        self._step = row["step"]
        self._screen.bar.row = row
        is_new = self._csv is None or self._csv.write("step", row)
        if is_new:
            values = {f"train/{key}": row.get(key) for key in STEP_TAGS}
            self._log_to("curves", lambda log: log.scalars(values, self._step))

    def epoch(self, row: dict[str, Any]) -> None:
        """The end of an epoch: epoch, step, train_loss, train_top1, lr, seconds, images_per_second, best (a flag).

        With validation images val_loss, val_top1 and, of more than five classes, val_top5 too; with a probe,
        probe_loss and probe_top1. Of sets of labels no train_top1, and val_map and probe_map in place of the others.
        """
        self._step = row["step"]
        self._screen.epoch(row, self._epochs)
        training = {key: row[f"train_{key}"] for key in ("loss", "top1") if f"train_{key}" in row}
        is_new = self._csv is None or self._csv.write("epoch", row | training)
        if is_new:
            values = {tag: row.get(key) for tag, key in EPOCH_TAGS.items()}
            self._log_to("curves", lambda log: log.scalars(values, self._step))

    def finish(self, results: dict[str, Any], next_commands: Sequence[str], *, ended: str = "") -> None:
        """The closing table, from what results.json holds, why it ended, and what the user may want to type next."""
        self._screen.stop_bar()
        epoch = str(results["best_epoch"])
        rows = [
            ("best epoch", epoch) if results["val"] else ("last epoch", f"{epoch}, none is best without validation")
        ]
        rows += [
            (name, _scores(results[key])) for name, key in (("validation", "val"), ("test", "test")) if results.get(key)
        ]
        rows += [("ended", ended)] if ended else []
        rows.append(("time", f"{clock(results['seconds'])}, {rate(results.get('images_per_second'))} images/s"))
        if self._folder:
            rows.append(("folder", short_path(self._folder)))
        self._screen.frame(results.get("status", "done"), rows)
        self.suggest(next_commands)

    def suggest(self, commands: Sequence[str]) -> None:
        """What the user may want to type next."""
        for index, command in enumerate(commands):
            self._screen.line(("next  " if index == 0 else "      ") + command, "cyan", copied=True)

    def pictures(self, tag: str, images: "torch.Tensor", captions: Sequence[str]) -> None:
        """Images (N, C, S, S), uint8, as one captioned grid in TensorBoard."""

        def draw(log: "TensorBoardLog") -> None:
            from cnntrain.plots.grid import grid

            log.picture(tag, grid(images.cpu().numpy(), captions), self._step)

        self._log_to(f"picture {tag}", draw)

    def confusion(self, tag: str, matrix: "torch.Tensor", classes: Sequence[str]) -> None:
        """Counts (K, K) of true (rows) against predicted (columns) classes, as a heat map in TensorBoard."""

        def draw(log: "TensorBoardLog", step: int) -> None:
            from cnntrain.plots.confusion import draw_confusion

            log.picture(tag, draw_confusion(matrix.cpu().numpy(), classes).pixels(), step)

        self.draw(f"picture {tag}", draw)

    def graph(self, model: "nn.Module", images: "torch.Tensor") -> None:
        """The graph of the model in TensorBoard; a model that cannot be traced costs a warning."""
        self._log_to("graph of the model", lambda log: log.graph(model, images))

    def hparams(self, settings: dict[str, Any], scores: dict[str, float]) -> None:
        """The settings (nested, plain) and final scores, for TensorBoard's table of runs."""
        self.draw("settings and final scores", lambda log, step: log.hparams(settings, scores, step))

    def close(self) -> None:
        """Give the terminal back and close the files; more than once is fine."""
        self._screen.stop_bar()
        for part in (self._csv, self._tensorboard, self._log):
            self._close(part)
        self._csv = self._tensorboard = self._log = self._screen.log = None

    @staticmethod
    def _close(part: "CsvLog | TensorBoardLog | TextIO | None") -> None:
        if part:
            with suppress(OSError):  # what could not be written has been told of
                part.close()


def _scores(scores: dict[str, Any]) -> str:
    """`top-1 95.12%, top-5 99.85%, loss 0.1721`, or `mAP 71.20%, loss 0.1721`."""
    score = main_score(scores)
    words = [f"{TITLES[score]} {percent(scores[score])}"]
    words += [f"top-5 {percent(scores['top5'])}"] if scores.get("top5") is not None else []
    return ", ".join([*words, f"loss {number(scores['loss'])}"])
