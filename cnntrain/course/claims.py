"""What a comparison says of a claim, and its rows as a table without what changes from machine to machine."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnntrain.compare.outcomes import score_title
from cnntrain.course.pages import Claim
from cnntrain.evaluation.intervals import student_reach

Record = Mapping[str, Any]  # a compare.json of our own


def read_record(file: Path) -> Record:
    record: Record = json.loads(file.read_text(encoding="utf-8"))
    return record


def verdict(claim: Claim, records: Sequence[Record]) -> str:
    """A line of Markdown: whether the claim is shown, with the difference in points and its interval of 95 %.

    The runs of both rows are paired by seed and fold, and the interval is Student's of the mean of the differences.
    """
    better, worse, measure = _scores(claim.better, records), _scores(claim.worse, records), records[0]["judged_by"]
    pairs = [better[repeat] - worse[repeat] for repeat in better if repeat in worse]
    if not pairs:
        raise AssertionError(f"no runs to pair for the claim: {claim.text}")
    mean = statistics.fmean(pairs)
    points = f"{_points(mean):+.1f} points of {score_title(measure)}"
    if len(pairs) < 2:
        return f"- **not shown**: {claim.text} ({points}; one seed has no interval)"
    if max(pairs) - min(pairs) < 1e-9:
        return f"- **not shown**: {claim.text} ({points} with each of {len(pairs)} seeds: without spread no interval)"
    reach = student_reach(pairs)
    low, high = mean - reach, mean + reach
    numbers = f"{points}, {_points(low):.1f} to {_points(high):.1f}, {len(pairs)} seeds"
    if low <= 0 <= high:
        return f"- **not shown**: {claim.text} ({numbers}: the interval holds 0)"
    return f"- **{'shown' if low > 0 else 'refuted'}**: {claim.text} ({numbers})"


def _points(share: float) -> float:
    """In hundredths, with one digit and no minus before a 0."""
    return round(100 * share, 1) + 0.0


def _scores(row: Sequence[str], records: Sequence[Record]) -> dict[str, float]:
    """By repeat, the scores of the finished runs of the one row that has these values.

    Args:
        row: KEY=VALUE, where a key may be the end of one, such as `dropout` of `model.args.dropout`.
    """
    found = [(record, values) for record in records for values in _values(record) if _has(values, row)]
    assert len(found) == 1, f"{' '.join(row)} is {len(found)} rows of the comparison"
    record, values = found[0]
    runs = [run for run in record["runs"] if values.items() <= run["values"].items() and run["status"] == "done"]
    keys = runs[0]["values"].keys() - values.keys() if runs else ()
    return {json.dumps({key: run["values"][key] for key in sorted(keys)}): run[record["judged_by"]] for run in runs}


def _values(record: Record) -> list[dict[str, str]]:
    return [row["values"] for row in record["rows"]]


def _has(values: Mapping[str, str], row: Sequence[str]) -> bool:
    wanted = [word.partition("=") for word in row]
    return all(
        any((key == name or key.endswith(f".{name}")) and _same(value, text) for key, value in values.items())
        for name, _, text in wanted
    )


def _same(value: str, text: str) -> bool:
    """Without regard to spaces and to case: a list of mappings has `False` for a `false` of the command."""
    return value.replace(" ", "").lower() == text.replace(" ", "").lower()


def table(record: Record) -> str:
    """The rows in Markdown: the scores with standard deviation, and the interval of what they are judged by."""
    judge = record["judged_by"]
    kind = judge.partition("_")[2]
    scores = [name for name in (f"val_{kind}", f"test_{kind}") if any(row.get(name) for row in record["rows"])]
    keys = list(record["rows"][0]["values"])
    heads = [*(f"`{key.rpartition('.')[2]}`" for key in keys), "parameters", "runs"]
    heads += [f"{score_title(name)}, %" for name in scores] + ["95 %"]
    lines = [heads, ["---"] * len(keys) + ["--:"] * (len(heads) - len(keys))]
    for row in record["rows"]:
        cells = [f"`{row['values'][key]}`" for key in keys]
        cells += [_count(row["parameters"]), str(row["done"])]
        lines.append([*cells, *(_pair(row[name]) for name in scores), _ends(row[judge])])
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _count(pair: Mapping[str, float] | None) -> str:
    return f"{pair['mean']:,.0f}" if pair else "-"


def _pair(pair: Mapping[str, float | None] | None) -> str:
    if not pair or pair["mean"] is None:
        return "-"
    spread = "" if pair["std"] is None else f" ± {100 * pair['std']:.1f}"
    return f"{100 * pair['mean']:.1f}{spread}"


def _ends(pair: Mapping[str, float | None] | None) -> str:
    if not pair or pair.get("low") is None or pair.get("high") is None:
        return "-"
    return f"{100 * (pair['low'] or 0):.1f} to {100 * (pair['high'] or 0):.1f}"
