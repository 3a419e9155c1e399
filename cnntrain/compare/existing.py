"""Runs that exist, beside each other: where they lie, and the settings in which they differ.

Nothing here imports torch. What is read may be a stranger's: nothing of it is followed, and all of it may be damaged.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cnntrain.compare import outcomes
from cnntrain.compare.outcomes import Outcome, Repeats
from cnntrain.compare.plan import FOLD, SEED, Combination
from cnntrain.config.advice import is_run
from cnntrain.config.changes import leaves, yaml_word
from cnntrain.config.messages import VARIANTS
from cnntrain.config.paths import absence
from cnntrain.config.plain import to_plain
from cnntrain.config.run_config import restore_config
from cnntrain.config.schema.settings import Settings
from cnntrain.errors import CheckpointError, CnntrainError, ConfigError
from cnntrain.storage import run_record
from cnntrain.text import printable

DEPTH = 5  # how far below a folder runs are looked for
# The settings that are shown first, as they decide most; the others follow in the order of the config.
FIRST = ("data", "model", "finetune", "augment", "loss", "optimizer", "optimizer.lr", "trainer.epochs")
# Those that no score goes by: told where they alone tell runs apart.
QUIET = (
    *("data.root", "data.download", "data.workers", "data.loader", "trainer.threads", "trainer.probe"),
    *("trainer.save_every", "trainer.log_every", "trainer.tensorboard", "trainer.profile", "trainer.report"),
)
GROUPS = {"data.name": "data", "model.name": "model", "finetune.mode": "finetune", "loss.name": "loss"}
GROUPS |= {f"{section}.name": section for section in VARIANTS}
REPEATS = (SEED, FOLD)
TITLES = ("data.title", "model.title")  # which are told as `data` and `model`


def find(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """The folders of all runs that are named or lie in a folder that is named; and why others there are left out.

    Raises:
        CheckpointError: a path that leads to no run, or a run that is named and has no results.
    """
    runs: dict[Path, Path] = {}
    notes: list[str] = []
    for path in paths:
        below = [] if is_run(path) else list(_runs_below(path))
        if not below:
            _need_results(path)
        for folder in below or [path]:
            try:
                _need_results(folder)
            except CnntrainError as error:
                notes.append(f"left out: {error}")
                continue
            runs.setdefault(folder.resolve(), folder)
        if not any(folder.resolve() in runs for folder in below or [path]):
            raise CheckpointError(f"{path}: no run there has results; finish one, or leave the folder out")
    return list(runs.values()), notes


def _runs_below(folder: Path) -> Iterator[Path]:
    """The runs in a folder at any depth that ours have, in the order of their names; links are not followed."""
    for place, names, _ in os.walk(folder):
        path = Path(place)
        if path != folder and is_run(path):
            yield path
            names.clear()
        elif len(path.relative_to(folder).parts) >= DEPTH:
            names.clear()
        names[:] = sorted(name for name in names if not name.startswith("."))


def _need_results(folder: Path) -> None:
    if what := absence(folder):
        raise CheckpointError(f"{folder}: {what}; give the folders of runs, or one that holds some")
    if folder.is_file():
        raise CheckpointError(f"{folder}: is a file; give the folders of runs, or one that holds some")
    run_record.read_config(folder)
    results = run_record.read_results(folder)
    if results.get("status") != "done":
        why = ": ".join(str(results[key]) for key in ("status", "error") if results.get(key)) or "no results.json"
        raise CheckpointError(f"{folder}: has no results ({why}); finish it with cnntrain resume, or leave it out")


def outcomes_of(folders: Sequence[Path]) -> tuple[list[Outcome], list[str]]:
    """The outcomes of runs that are done, named by the settings in which they differ; and what of them is left out.

    Of two runs of the very same config the later one counts: it repeats nothing.

    Raises:
        CheckpointError: a config that is none of ours.
    """
    configs: dict[Path, Settings] = {folder: _settings(folder) for folder in folders}
    latest: dict[str, Path] = {}
    notes = []
    for folder in sorted(configs, key=lambda one: (one / run_record.RESULTS).stat().st_mtime):
        text = str(to_plain(configs[folder]))
        if text in latest:
            notes.append(f"left out: {latest[text]}: has the config of {folder}, which is newer")
        latest[text] = folder
    kept = [folder for folder in folders if folder in latest.values()]
    columns = differences([configs[folder] for folder in kept])
    found = []
    for row, folder in enumerate(kept):
        values = {key: texts[row] for key, texts in columns.items()}
        run = Combination((), values, configs[folder])
        found.append(outcomes.outcome(run, folder, run_record.read_results(folder)))
    return found, notes


def _settings(folder: Path) -> Settings:
    try:
        return restore_config(run_record.read_config(folder), (), str(folder / run_record.CONFIG)).settings
    except ConfigError as error:
        first, *others = error.lines()
        more = f", and {len(others)} more faults" if others else ""
        raise CheckpointError(f"{first} ({folder.name} is no run of this cnntrain{more}); leave it out") from error


def differences(settings: Sequence[Settings]) -> dict[str, list[str]]:
    """The settings in which runs differ, each with the texts of all runs; `-` where a run has no such setting.

    Groups are named as they are typed, `augment` by its pieces. What belongs to a choice that a run has not made is no
    difference of its own. Seed and fold only repeat a run, and are none either; nor is what no score goes by, unless
    runs are told apart by it alone.
    """
    flats = [_named(one) for one in settings]
    columns: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for flat in flats for key in flat):
        values = [flat.get(key, "-") for flat in flats]
        has_it = {flat.get(key.partition(".")[0]) for flat in flats if key in flat}
        without = {flat.get(key.partition(".")[0]) for flat in flats if key not in flat}
        compared = set(values) - ({"-"} if has_it.isdisjoint(without) else set())
        if len(compared) > 1 and key not in REPEATS:
            columns[key] = values
    places = {key: FIRST.index(key) if key in FIRST else len(FIRST) + (key in QUIET) for key in columns}
    found = {key: columns[key] for key in sorted(columns, key=lambda key: places[key])}
    repeats = [[flat.get(key, "-") for flat in flats] for key in REPEATS]
    telling = {key: texts for key, texts in found.items() if key not in QUIET}
    rows, all_rows = (len(set(zip(*columns.values(), *repeats, strict=True))) for columns in (telling, found))
    return telling if rows == all_rows else found


def _named(settings: Settings) -> dict[str, str]:
    """All settings as texts, by the words that choose them."""
    flat: dict[str, Any] = {}
    for key, value in leaves(to_plain(settings)).items():
        is_idle = value == {} or (key.startswith("augment.") and value is None) or key in TITLES
        flat |= {} if is_idle else {GROUPS.get(key, key): value}
    texts = {key: printable(_word(value)) for key, value in flat.items()}
    titles = {"data": settings.data.heading, "model": settings.model.heading}
    return texts | titles | {"augment": ",".join(settings.augment.pieces) or "none"}


def _word(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_word, value))}]"
    return f"{value:g}" if isinstance(value, float) else yaml_word(value)


def share_images(rows: Sequence[Repeats], measure: str) -> bool:
    """Whether the rows were judged on the same images, as far as their folders tell; the splits of repeats differ."""
    marks, splits = set(), []
    for row in rows:
        for outcome in row.finished_outcomes:
            fingerprint: Any = None
            with contextlib.suppress(CnntrainError):
                fingerprint = run_record.read_environment(outcome.folder).get("data_fingerprint")
            marks.add(str((fingerprint, outcome.run.settings.data.classes)))
        runs = [outcome.run.settings for outcome in row.finished_outcomes]
        splits.append({(run.seed, run.data.val, run.data.folds, run.data.fold) for run in runs})
    has_split = not measure.startswith("val_") or bool(set.intersection(*(split for split in splits if split)))
    return len(marks) < 2 and has_split
