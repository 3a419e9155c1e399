"""`cnntrain eval RUN_DIR_OR_CHECKPOINT [overrides]`: what a trained network is worth on validation and test images."""

import contextlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.run_commands import EvalArgs
from cnntrain.data.split_file import name_of
from cnntrain.errors import DataError
from cnntrain.evaluation.evaluate import evaluate
from cnntrain.evaluation.label_sets import evaluate_sets, score_sets
from cnntrain.evaluation.robustness import score_corrupted
from cnntrain.evaluation.split_scores import score_split
from cnntrain.report import evaluation as tables
from cnntrain.report import evaluation_files as files
from cnntrain.report import set_evaluation, set_evaluation_files
from cnntrain.report.run_report import Report
from cnntrain.storage import checkpoint, run_folder
from cnntrain.storage.atomic import StreamedFile, file_system_error, need_own_folder
from cnntrain.text import few, percent, printable, short_path
from cnntrain.training.job import Job
from cnntrain.training.load_run import load_job
from cnntrain.training.tta import Views


@dataclass(frozen=True)
class Road:
    """What images are scored by, and how that is told and written: images of one class each, or of a set of labels.

    Attributes:
        score: one split; it finds the temperature too.
        evaluate: all splits.
        rows: writes a row for each image.
        need_file: refuses a file that there is not.
    """

    score: Callable[..., Any]
    evaluate: Callable[..., Any]
    rows: Callable[[StreamedFile, Sequence[str]], Any]
    tell: Callable[..., list[str]]
    need_file: Callable[[Path], None]
    write_file: Callable[..., None]
    write_folder: Callable[..., None]


CLASSES = Road(
    score_split, evaluate, files.ImageRows, tables.tell, lambda out: None, files.write_file, files.write_folder
)
SETS = Road(
    score_sets,
    evaluate_sets,
    set_evaluation_files.SetRows,
    set_evaluation.tell,
    set_evaluation_files.need_file,
    set_evaluation_files.write_file,
    set_evaluation_files.write_folder,
)


def run(args: EvalArgs, config: RunConfig | None = None) -> dict[str, Any]:
    """Score a checkpoint; it knows its classes, preprocessing and config, and `data.root=...` points to other images.

    Args:
        config: that of the run folder, where it is known.

    Returns:
        "checkpoint"; "tta" (names) and "views" (how many) where views are averaged; of each split the scores that
        score_split or score_sets tells, and of the last one the "worst" images and, where asked for, "robustness".

    Raises:
        DataError: `calibrate` has no images to fit a temperature to, or they tell none that helps.
        RunFolderError: it would change a checkpoint of a run that goes on.
    """
    with contextlib.ExitStack() as stack:
        report = Report(None, tensorboard=False)
        stack.callback(report.close)
        if args.calibrate is not None:
            stack.enter_context(_lock(checkpoint.find(args.run), report.warn))
        folder, _, job = load_job(args.run, args.words, report, config)
        road = SETS if job.data.multi_label else CLASSES
        home = args.out if args.out and args.out.suffix.lower() not in files.ENDS else None
        if args.out and not home:
            road.need_file(args.out)
        temperature = ""
        if args.calibrate:
            job, temperature = _calibrate(job, road, folder, report)
        elif args.calibrate is not None:
            job, temperature = _forget(job, folder)
        elif job.temperature != 1:
            temperature = f"{job.temperature:.4g}, fitted to the validation images"
        views = Views(args.tta, job.data.eval_size) if args.tta else None
        evaluation = _evaluate(job, road, views, home, report)
        results: dict[str, Any] = {"checkpoint": str(folder)}
        if views:
            results |= {"tta": list(views.names), "views": len(views)}
        results |= evaluation.scores
        last = results[evaluation.last]
        if args.robust:
            _start(job, evaluation.last, "corrupting", report)
            last["robustness"] = score_corrupted(job, evaluation.last, args.robust, views=views, advance=report.advance)
        report.end_phase()
        loader = job.data.scored_splits[evaluation.last]
        if home:
            title = short_path(folder)
            road.write_folder(home, evaluation, results, lambda indices: loader.pick(torch.tensor(indices)), title)
        elif args.out:
            road.write_file(args.out, evaluation, results)
        network = f"{job.settings.model.heading}, {len(job.data.classes):,} classes"
        rows = {"network": network, "tta": str(views or ""), "temperature": temperature}
        report.header(short_path(folder), [(name, value) for name, value in rows.items() if value])
        for line in road.tell(evaluation, last.get("robustness")):
            report.say(line)
        if evaluation.last == "test" and tables.does_harm(last):
            report.warn("the temperature harms the test images: calibrate=false forgets it")
        _warn_of_bad_images(job, report)
        if args.out:
            report.say(f"wrote {printable(short_path(args.out))}{'/' if home else ''}", copied=True)
        report.suggest(_next_commands(args, home))
        return results


@contextlib.contextmanager
def _lock(folder: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Own the run that a checkpoint belongs to, where it lies in one."""
    run = folder.parent.parent
    if folder.parent.name != "checkpoints" or not (run / "config.yaml").is_file():
        yield
        return
    with run_folder.lock(run, warn):
        yield


def _calibrate(job: Job, road: Road, folder: Path, report: Report) -> tuple[Job, str]:
    """The job at the temperature that suits the validation images best, which the checkpoint keeps; and words on it."""
    if not job.data.val:
        raise DataError(
            "calibrate: there are no validation images to fit a temperature to, and the test images must choose "
            "nothing; give some with data.root=DIR, which holds val/"
        )
    report.validating(len(job.data.val), phase="calibrating")
    found = road.score(job, "val", advance=report.advance)
    report.end_phase()
    fit, images = found.fit, f"{found.scores['images']:,} validation images"
    more = "leave calibrate out, or give more images with data.root=DIR"
    if fit is None:
        state = "all of them are right" if found.is_right else "the network is no better than chance"
        raise DataError(f"calibrate: no temperature fits the {images} best, as {state}; {more}")
    if not fit.helps:
        raise DataError(
            f"calibrate: these {images} do not tell a temperature that helps: fitted to one half of them, it does not "
            f"lower the loss of the other; {more}"
        )
    checkpoint.annotate(folder, temperature=fit.temperature)
    error = percent(found.scores["calibration"]["ece"])
    words = f"{fit.temperature:.4g}, kept; at {job.temperature:.4g} the ECE of validation was {error}"
    return job.at_temperature(fit.temperature), words


def _forget(job: Job, folder: Path) -> tuple[Job, str]:
    """The job at a temperature of 1, as the checkpoint keeps no other any longer; and words on it."""
    if job.temperature == 1:
        return job, "1; the checkpoint has no other to forget"
    checkpoint.annotate(folder, temperature=None)
    return job.at_temperature(1.0), f"1; {job.temperature:.4g} is forgotten"


def _evaluate(job: Job, road: Road, views: Views | None, home: Path | None, report: Report) -> Any:
    """Score all splits; into a folder, a row for each image is written on the way."""
    rows: Any = None

    def start(split: str) -> list[Any]:
        _start(job, split, "testing" if split == "test" else "validating", report)
        if rows is None:
            return []
        rows.split, rows.name = split, name_of(job.data.scored_splits[split], job.data.home)
        return [rows]

    with contextlib.ExitStack() as stack:
        if home:
            stack.callback(run_folder.remove_empty, home)  # where nothing was written
            try:
                need_own_folder(home, word=files.WORD).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise file_system_error(home, error, what="the folder cannot be made", word=files.WORD) from error
            file = stack.enter_context(StreamedFile(home / "errors.csv", word=files.WORD))
            rows = road.rows(file, job.data.classes)
        return road.evaluate(job, views=views, start=start, advance=report.advance)


def _start(job: Job, split: str, phase: str, report: Report) -> None:
    report.validating(len(job.data.scored_splits[split]), phase=phase)


def _warn_of_bad_images(job: Job, report: Report) -> None:
    bad = [file for loader in job.data.scored_splits.values() for file, _ in loader.bad_files]
    if bad:
        images = "1 image" if len(bad) == 1 else f"{len(bad):,} images"
        report.warn(f"{images} cannot be decoded; others of the same class stood in: {few(bad)}")


def _next_commands(args: EvalArgs, home: Path | None) -> list[str]:
    """What a user may want to type next; each of it does something."""
    run, is_run = short_path(args.run), (args.run / "config.yaml").is_file()
    lines = [] if home else [["eval", run, *args.words, f"out={run}/eval" if is_run else "out=eval"]]
    lines += [["report", run, *args.words]] if is_run else []
    return [shlex.join(["cnntrain", *words]) for words in (*lines, ["explain", run, *args.words])]
