"""`cnntrain export RUN_DIR_OR_CHECKPOINT format=...`: a trained network as a file for other programs."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnntrain.config.run_config import RunConfig
from cnntrain.config.schema.export import ENDINGS, Format
from cnntrain.config.schema.run_commands import ExportArgs
from cnntrain.config.schema.scores import TITLES
from cnntrain.errors import DataError, FileSystemError, UnsafeError
from cnntrain.export import int8, latency, parity, usage
from cnntrain.export.subject import ExportedFile, Subject
from cnntrain.export.to_onnx import to_onnx
from cnntrain.export.to_safetensors import Weights, to_safetensors
from cnntrain.export.to_torch_export import to_torch_export
from cnntrain.export.to_torchscript import to_torchscript
from cnntrain.report.run_report import Report
from cnntrain.storage.atomic import file_system_error, need_own_folder, read_own, write_atomic
from cnntrain.text import percent, printable, short_path, wrap_facts
from cnntrain.training.job import Job
from cnntrain.training.load_run import load_job

WORD = "out=FILE"  # which chooses another place
EXAMPLE = """\
or    from {module} import classify  # in the folder of {module}.py
      for name, probability in classify("cat.jpg"){most}:
          print(f"{{name}}: {{probability:.2%}}")
"""
MAKERS: dict[Format, Callable[[Subject], ExportedFile]] = {
    Format.onnx: to_onnx,
    Format.torch_export: to_torch_export,
    Format.torchscript: to_torchscript,
    Format.safetensors: to_safetensors,
}


def run(args: ExportArgs, config: RunConfig | None = None) -> dict[str, Any]:
    """Make the file, prove it, and write it with a program that shows its use.

    Args:
        config: that of the run folder, where it is known.

    Returns:
        "checkpoint", "file", "program" (paths), "images" (of the proof) and "difference".

    Raises:
        ConfigError: the format cannot hold the network, or the file would answer otherwise.
    """
    report = Report(None, tensorboard=False)
    try:
        checkpoint, job, reason = _load(args, config, report)
        export = _Export(args, checkpoint, job, report)
        if reason:
            report.say(f"random images stand in for those of the run ({reason})")
        return export.run()
    finally:
        report.close()


def _load(args: ExportArgs, config: RunConfig | None, report: Report) -> tuple[Path, Job, str]:
    """The network, with its images where these are here; else why they are not."""
    try:
        checkpoint, _, job = load_job(args.run, args.words, report, config, command="export")
        return checkpoint, job, ""
    except (DataError, UnsafeError) as error:
        if args.int8 or any(word.startswith("data.") for word in args.words):  # the images were asked for
            raise
        checkpoint, _, job = load_job(args.run, args.words, report, config, images=False, command="export")
        return checkpoint, job, str(error).partition(";")[0]


class _Export:
    """One call: the network, and the file that is made of it."""

    def __init__(self, args: ExportArgs, checkpoint: Path, job: Job, report: Report) -> None:
        self.args, self.checkpoint, self.job, self.report = args, checkpoint, job, report
        self.subject = Subject(job, args.preprocessing)
        self.out = args.out or self._default_out()
        self.program = self.out.with_suffix(".py")
        _need_own_program(self.program, self.out.name)

    def run(self) -> dict[str, Any]:
        """See run."""
        name = self.job.settings.model.heading
        self.report.say(f"exporting {name} as {self.args.format.name}; large networks take a minute")
        file = MAKERS[self.args.format](self.subject)
        found = parity.compare(file, self.subject, self._images())
        parity.need_parity(found, self.args.format)
        results = {
            "checkpoint": str(self.checkpoint),
            "file": str(self.out),
            "program": str(self.program),
            "images": found.images,
            "difference": found.difference,
        }
        rows, small = self._facts(file, found), file
        if self.args.int8:
            small, words, scores = self._quantize(file)
            results |= scores
            rows.append(("int8", words))
        if self.args.latency:
            rows.append(("latency", latency.in_words(latency.measure(file, self.subject), file.runtime)))
        if self.args.int8 and self.args.latency:
            rows.append(("  in int8", latency.in_words(latency.measure(small, self.subject), small.runtime)))
        self.report.header(short_path(self.checkpoint), wrap_facts(dict(rows)))
        self._write(small)
        return results

    def _quantize(self, file: ExportedFile) -> tuple[ExportedFile, str, dict[str, float]]:
        """The file in whole numbers, and what they cost in words and as results."""
        split, loader = next(iter(self.job.data.scored_splits.items()))
        small, count = int8.quantize(file, self.subject, loader)
        self.report.validating(len(loader), phase="scoring")
        cost = int8.cost(file.ask, small.ask, self.subject, loader, self.report.advance)
        self.report.end_phase()
        score, named = "top1", "the probability of the class named moves"
        if self.job.data.multi_label:
            score, named = "map", "the probabilities of the labels given move"
        if cost.before - cost.after > int8.COSTLY:
            points = f"{100 * (cost.before - cost.after):.1f} points"
            self.report.warn(f"whole numbers cost {points} of {TITLES[score]}; leave out int8 where these count")
        what = f"{len(loader.labels):,} {'validation' if split == 'val' else 'test'} images"
        words = (
            f"{TITLES[score]} {percent(cost.after)} of {what}, before {percent(cost.before)}; {named} "
            f"by {100 * cost.shift:.1f} points on average; calibrated on {count:,} of them"
        )
        return small, words, {f"{score}_before": cost.before, score: cost.after, "probability_shift": cost.shift}

    def _default_out(self) -> Path:
        folder = self.checkpoint.parent.parent if self.checkpoint.parent.name == "checkpoints" else self.checkpoint
        kind = self.args.format.name + ("_int8" if self.args.int8 else "")
        return folder / "export" / kind / f"model{ENDINGS[self.args.format]}"

    def _images(self) -> Tensor:
        """uint8 (N, C, S, S) on the CPU, spread over the validation images, and the test images where these are few."""
        parts: list[Tensor] = []
        for loader in self.job.data.scored_splits.values():
            count = min(parity.MOST_IMAGES - sum(map(len, parts)), len(loader.labels))
            if count:
                parts.append(loader.pick(torch.linspace(0, len(loader.labels) - 1, count).long()).cpu())
        return torch.cat(parts) if parts else parity.random_images(self.subject)

    def _facts(self, file: ExportedFile, found: parity.Parity) -> list[tuple[str, str]]:
        job, data, whole = self.job, self.job.data, self.subject.has_preprocessing
        size = data.eval_size
        takes = (
            f"uint8 (N, {size}, {size}, {data.channels})" if whole else f"float32 (N, {data.channels}, {size}, {size})"
        )
        what = "images of the run" if data.scored_splits else "random images"
        proof = (
            f"{found.images} {what} in {file.runtime}: at most {found.difference:.1e} of "
            f"{'a probability' if whole else 'the largest logit'} off ({parity.TOLERANCE:.0e} allowed), "
            f"same {'labels' if data.multi_label else 'class'} {found.same_class} of {found.images}"
        )
        if isinstance(file, Weights) and file.twin is None:
            proof = f"none elsewhere, as {file.reason}: model.weights=FILE of cnntrain reads it"
        return [
            ("network", f"{job.settings.model.heading}, {len(data.classes):,} classes, {size} x {size} pixels"),
            ("format", ", ".join([self.args.format.name, *(f"{name} {fact}" for name, fact in file.facts)])),
            ("takes", f"{takes}{'' if whole else ', normalised'}"),
            ("gives", f"{self.subject.output_name}, float32 (N, {len(data.classes)})"),
            ("proof", proof),
        ]

    def _write(self, file: ExportedFile) -> None:
        twin = file.twin if isinstance(file, Weights) else None
        has_program = twin is not None or not isinstance(file, Weights)
        if self.args.out is None:
            _make(need_own_folder(need_own_folder(self.out.parent.parent, word=WORD) / self.out.parent.name, word=WORD))
        write_atomic(self.out, file.content, word=WORD)
        lines = [f"wrote {printable(short_path(self.out))}, {len(file.content) / 1e6:.1f} MB"]
        if has_program:
            text = usage.program(self.subject, self.args.format, self.out.name, self.out.stem, twin)
            write_atomic(self.program, text, word=WORD)
            lines.append(f"      {printable(short_path(self.program))}, which shows its use")
            example = EXAMPLE.format(module=self.out.stem, most="" if self.job.data.multi_label else "[:5]")
            lines.append("next  " + shlex.join(["python", short_path(self.program), "cat.jpg"]))
            lines += example.splitlines() if self.out.stem.isidentifier() else []
        if twin:
            more = [twin.last_line] if twin.last_line else []
            lines += [f"the same network, of {twin.library}:", *(f"      {line}" for line in [*twin.lines, *more])]
        for line in lines:
            self.report.say(line, copied=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_system_error(folder, error, what="the folder cannot be made", word=WORD) from error


def _need_own_program(program: Path, file: str) -> None:
    """Refuse to write over what is not ours, such as the network's own code, or shows the use of another file."""
    try:
        is_own = read_own(program).decode(errors="replace").startswith(usage.MARK.format(file=file))
    except FileNotFoundError:
        return
    except OSError as error:
        raise file_system_error(program, error, word=WORD) from error
    if not is_own:
        raise FileSystemError(
            f"{printable(program)}: is there, and not what cnntrain writes beside {printable(file)}; give the file "
            f"another name, {WORD}"
        )
