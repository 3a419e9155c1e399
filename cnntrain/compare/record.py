"""What a comparison leaves: its numbers as CSV and JSON, its charts, and a page of TensorBoard."""

import json
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cnntrain.compare import plan
from cnntrain.compare.outcomes import METHODS, OTHERS, Outcome, Repeats, method_of_one, score_title, scores_like
from cnntrain.compare.plan import REPEATS
from cnntrain.evaluation.intervals import Interval, wilson
from cnntrain.storage import spreadsheet
from cnntrain.storage.atomic import read_own, write_atomic

WORD = "out=DIR"
EVENTS = ".compare"  # the end of the name of our event file
TABLE, RECORD = "compare.csv", "compare.json"
CHARTS = {"compare.png": "png", "compare.svg": "svg"}  # by name, their kind


def tables_folder(home: Path, words: Sequence[str]) -> Path:
    """The folder of the tables: beside the runs, which all comparisons share, if no other one has its own there."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        _, _, *line = shlex.split(json.loads(read_own(home / RECORD))["command"])
        if plan.subject(line) != plan.subject(words):
            folder = home / plan.tables_name(words)
            folder.mkdir(exist_ok=True)
            return folder
    return home


def has_logs(rows: Sequence[Repeats]) -> bool:
    return any(outcome.run.settings.trainer.tensorboard for row in rows for outcome in row.finished_outcomes)


def write_numbers(
    tables: Path, rows: Sequence[Repeats], measure: str, best: Repeats | None, words: Sequence[str]
) -> None:
    """compare.json and compare.csv: every row and every run, each score with its interval."""
    scores = scores_like(measure)
    numbers = [_row_numbers(row, scores) | {"best": row is best} for row in rows]
    runs = [_run_numbers(outcome, scores) for row in rows for outcome in row.outcomes]
    command = shlex.join(["cnntrain", "compare", *words])
    record = {"command": command, "judged_by": measure, "intervals": METHODS, "rows": numbers, "runs": runs}
    text = json.dumps(record, indent=2, ensure_ascii=False)
    write_atomic(tables / RECORD, text + "\n", word=WORD)

    keys = [*rows[0].values, *REPEATS]
    ends = {name: (f"{name}_low", f"{name}_high") for name in scores}
    measures = (*scores, *OTHERS)
    spreads = [column for name in measures for column in (name, f"{name}_std", *ends.get(name, ()))]
    heads = ["kind", *keys, "status", "runs", "best", *spreads, "interval", "folder"]
    lines: list[dict[str, Any]] = []
    for line in numbers:
        pairs = {name: pair for name in measures if (pair := line[name])}
        means = {name: pair["mean"] for name, pair in pairs.items()}
        more = {f"{name}_{part}": value for name, pair in pairs.items() for part, value in pair.items()}
        status = "done" if line["done"] == line["runs"] else f"{line['done']} done"
        cells = {"status": status, "runs": line["runs"], "best": int(line["best"])}
        lines.append({"kind": "row", "interval": line["interval"]} | line["values"] | cells | means | more)
    for line in runs:
        lines.append({"kind": "run"} | line["values"] | line)
    table = spreadsheet.as_csv([heads, *([line.get(head) for head in heads] for line in lines)])
    write_atomic(tables / TABLE, table, word=WORD)


def _row_numbers(row: Repeats, scores: Sequence[str]) -> dict[str, Any]:
    spreads = {name: row.spread(name) for name in (*scores, *OTHERS)}
    pairs = {name: spread and {"mean": spread.mean, "std": spread.std} for name, spread in spreads.items()}
    for name in scores:
        if pair := pairs[name]:
            pair.update(_ends(row.interval(name)))
    done = len(row.finished_outcomes)
    counts = {"runs": len(row.outcomes), "done": done, "interval": row.method if done else None}
    return {"values": row.values} | counts | pairs


def _run_numbers(outcome: Outcome, scores: Sequence[str]) -> dict[str, Any]:
    run, method = outcome.run, method_of_one(outcome)
    numbers: dict[str, Any] = {name: outcome.measures.get(name) for name in (*scores, *OTHERS)}
    for name in scores:
        score, images = outcome.measures.get(name), outcome.images_of(name)
        ends = _ends(wilson(score, images) if score is not None and images and method else None)
        numbers |= {f"{name}_{end}": value for end, value in ends.items()}
    return {
        "values": run.values | run.repeat,
        "status": outcome.status,
        "note": outcome.note,
        "folder": str(outcome.folder),
        "interval": method,
        "images": outcome.images,
    } | numbers


def _ends(interval: Interval | None) -> dict[str, float | None]:
    return {"low": interval and interval.low, "high": interval and interval.high}


def write_charts(tables: Path, rows: Sequence[Repeats], measure: str, best: Repeats | None, *, title: str) -> None:
    """The charts, and a page of TensorBoard beside those of the runs."""
    from cnntrain.compare.table import curves_of, markdown, points
    from cnntrain.plots.comparison import Point, draw_comparison

    def points_of(outcome: Outcome) -> list[Point]:
        return points(outcome.folder / "metrics.csv", outcome.measures.get("train_seconds", 0.0))

    epochs = [[points_of(outcome) for outcome in row.finished_outcomes] for row in rows]
    curves = curves_of(rows, measure, epochs)
    if not curves:  # somebody has tidied up
        return
    count = sum(len(row.finished_outcomes) for row in rows)
    score = score_title(measure).partition(" ")[2]
    picture = draw_comparison(curves, f"{title}: {len(rows)} configs, {count} runs", score)
    for name, kind in CHARTS.items():
        write_atomic(tables / name, picture.content(kind), word=WORD)
    for file in tables.glob(f"events.out.tfevents.*{EVENTS}"):
        file.unlink()
    if has_logs(rows):
        from cnntrain.report.tensorboard import TensorBoardLog

        log = TensorBoardLog(tables, suffix=EVENTS)
        log.text("compare/table", markdown(rows, measure, best), 0)
        log.picture("compare/curves", picture.pixels(), 0)
        log.close()
