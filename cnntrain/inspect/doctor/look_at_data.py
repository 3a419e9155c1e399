"""The whole look at the data of a config, with what it tells and writes."""

import io
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cnntrain.config.schema.data import DATASETS, Interpolation, Sampling
from cnntrain.config.schema.settings import Settings
from cnntrain.data.build_files import decode_threads
from cnntrain.data.decode import BadImage
from cnntrain.data.view import resize_planes
from cnntrain.inspect.doctor import tables
from cnntrain.inspect.doctor.findings import LABEL, Circumstances, Entry, Finding, find_all
from cnntrain.inspect.doctor.labels import LabelCheck, check_labels
from cnntrain.inspect.doctor.look import Looks, look_at, tasks_of
from cnntrain.inspect.doctor.pairs import Pair, alike_pairs, exact_pairs, single_places
from cnntrain.inspect.doctor.subject import Subject, find_subject
from cnntrain.inspect.doctor.twins import blocks_of, find_twins
from cnntrain.report.run_report import Report
from cnntrain.runtime import device as machine
from cnntrain.runtime.threads import set_threads
from cnntrain.storage import run_folder
from cnntrain.storage.atomic import write_atomic
from cnntrain.text import counted, printable, short_path
from cnntrain.training.job import Job

MANY = 20_000  # images, from which on it is told how to look at fewer
SHOWN = 256  # pixels a side of an image that is kept for the sheet
MOST_SHOWN = 24  # images or pairs of a finding, on the sheet


@dataclass(frozen=True)
class Answer:
    """What was looked at, and what was found."""

    subject: Subject
    looks: Looks
    findings: list[Finding]
    heading: str
    labels: LabelCheck | None = None

    @property
    def serious(self) -> list[Finding]:
        """What harms a training or its scores."""
        return [finding for finding in self.findings if finding.is_serious]

    def as_plain(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return tables.as_plain(self.subject, self.looks, self.findings, self.labels)


def look_at_data(
    settings: Settings,
    most: int | None,
    report: Report,
    job: Job | None = None,
    *,
    labels: bool = False,
    splits: Path | None = None,
) -> Answer | None:
    """Look at the images of a config, and tell what they are like and what was found; None where they cannot be listed.

    Args:
        most: images that are looked at, evenly spaced; None: all.
        job: a trained network that is asked for its opinion of the labels.
        labels: tell which of them look wrong.
        splits: see find_subject.

    Raises:
        ConfigError: trainer.device is not there, or see check_labels.
        DataError: there are none, or what holds them is damaged.
    """
    device = machine.choose_device(settings.trainer.device)  # may be at fault
    subject = find_subject(settings.data, splits)
    if subject is None:
        report.say(f"data: images of {printable(settings.data.name)} cannot be listed, so that they are not looked at")
        return None
    set_threads(settings.trainer.threads)
    rows, workers = subject.sample(most), decode_threads(settings.data.workers)
    if len(rows) >= MANY:
        report.say(f"looking at {counted(len(rows), 'image')}; images=1000 looks at some of them, images=0 at none")
    report.validating(tasks_of(rows), phase="looking")
    looks = look_at(subject, rows, workers=workers, advance=report.advance)
    report.end_phase()
    pairs = [*exact_pairs(looks), *_alike(subject, looks, device, workers, report)]
    entry = DATASETS.entry(settings.data.name)
    weights = settings.loss.pos_weight if subject.has_sets else settings.loss.class_weights
    config = Circumstances(
        size=(settings.data.image_size or entry.image_size) if subject.has_files else None,
        draws_val=bool(settings.data.val) and all(part.split != "val" for part in subject.parts),
        evens_out=weights is not None or settings.data.sampling is Sampling.balanced,
    )
    check = check_labels(subject, looks, settings, job, report) if labels else None
    findings = find_all(subject, looks, pairs, config, check.findings if check else [])
    answer = Answer(subject, looks, findings, settings.data.heading, check)
    _tell(answer, report)
    return answer


def _alike(subject: Subject, looks: Looks, device: torch.device, workers: int, report: Report) -> list[Pair]:
    """Pairs that are nearly the same picture; smaller ones than a thumbnail show too little to tell that."""
    places = single_places(looks)
    places = places[looks.is_comparable[places]]
    report.validating(blocks_of(len(places)), phase="comparing")
    twins = find_twins(looks.thumbs[places], device, workers=workers, advance=report.advance)
    report.end_phase()
    return alike_pairs(subject, looks.rows[places], twins)


def _tell(answer: Answer, report: Report) -> None:
    report.header(f"data: {answer.heading}", tables.facts(answer.subject, answer.looks, answer.labels))
    if not answer.findings:
        report.say("nothing found in the data that needs a look")
        return
    for line, is_serious in tables.lines(answer.subject, answer.findings):
        report.say(line, style="" if is_serious else "dim")


# --- files ------------------------------------------------------------------------------------------------------------


def write(out: Path, answer: Answer, report: Report) -> None:
    """Write what was found: a folder with all files, or one of them by its end."""
    kinds = [out.suffix.lower()] if out.suffix.lower() in (".json", ".csv", ".png") else [".json", ".csv", ".png"]
    if len(kinds) > 1:
        run_folder.make(out)
    names = {".json": "findings.json", ".csv": "files.csv", ".png": "pairs.png"}
    for kind in kinds:
        path = out if len(kinds) == 1 else out / names[kind]
        if (content := _content(kind, answer)) is None:
            if len(kinds) == 1:
                report.say("no sheet, as no two images are the same")
            continue
        write_atomic(path, content, word=f"out=FILE{kind}" if len(kinds) == 1 else "out=DIR")
        report.say(f"wrote {printable(short_path(path))}", copied=True)


def _content(kind: str, answer: Answer) -> str | bytes | None:
    if kind == ".json":
        return tables.as_json(answer.as_plain())
    return tables.as_table(answer.subject, answer.findings) if kind == ".csv" else _sheet(answer)


def _sheet(answer: Answer) -> bytes | None:
    """The images of each finding that has pairs, or doubts of labels, decoded once more; None where there are none."""
    from cnntrain.plots.pairs import Portrait, draw_pairs

    subject = answer.subject

    def portrait(index: int, note: str) -> Portrait:
        name = os.path.basename(subject.name(index)) if subject.has_files else subject.name(index)
        return Portrait(_small(subject.picture(index)), subject.label(index), note, name)

    groups: dict[str, list[tuple[Portrait, ...]]] = {}
    for finding in answer.findings:
        for entry in _chosen(finding):
            notes = [(entry.image, entry.note)]
            if pair := entry.pair:
                likeness = "" if pair.is_exact else f"  {pair.likeness:.3f}"  # by which they are in order
                notes = [(pair.image, subject.split(pair.image) + likeness), (pair.other, subject.split(pair.other))]
            with suppress(BadImage):  # gone since it was looked at
                portraits = tuple(portrait(*one) for one in notes)
                groups.setdefault(finding.what.replace(", ", "\n"), []).append(portraits)
    if not groups:
        return None
    content = io.BytesIO()
    draw_pairs(groups, "Images to look at", answer.heading).save(content, "PNG", optimize=True)
    return content.getvalue()


def _small(pixels: torch.Tensor) -> torch.Tensor:
    """An image of uint8 (C, H, W) with sides of at most SHOWN pixels: a sheet holds many."""
    height, width = pixels.shape[1:]
    scale = SHOWN / max(height, width)
    if scale >= 1:
        return pixels
    height, width = (max(1, round(scale * length)) for length in (height, width))
    return resize_planes(pixels.unsqueeze(0), height, width, Interpolation.bilinear).squeeze(0)


def _chosen(finding: Finding) -> list[Entry]:
    """What of a finding is shown: of labels the worst, of pairs the most and the least alike and some in between."""
    entries = finding.entries
    if finding.kind == LABEL:
        return entries[:MOST_SHOWN]
    if not finding.is_of_pairs or len(entries) <= MOST_SHOWN:
        return entries if finding.is_of_pairs else []
    return [entries[place] for place in np.linspace(0, len(entries) - 1, MOST_SHOWN).round().astype(int).tolist()]
