"""A comparison of runs: its table for the terminal and for TensorBoard, and the curves that its picture shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.cells import cell_len, set_cell_size

from cnntrain.compare.outcomes import Repeats, Spread, score_title
from cnntrain.compare.plan import short_keys
from cnntrain.config.schema.scores import main_score
from cnntrain.evaluation.intervals import Interval
from cnntrain.models.catalogue import short
from cnntrain.plots.comparison import Curve, Point
from cnntrain.report.csv_log import rows_of
from cnntrain.text import shorten, shorten_apart

# --- the table -------------------------------------------------------------------------------------------------------

WIDTH = 80
WIDEST_INTERVAL = 0.5  # that is shown
FEW_VALUES = 3  # columns of listed values that are shortened rather than left out
NARROWEST_VALUE = 6  # letters that a listed value keeps where the table has no room for it
# Of time: from so many seconds on, seconds, name, decimals.
UNITS = ((2 * 3600, 3600, "h", 2), (600, 60, "min", 1), (10, 1, "s", 1), (0, 1, "s", 2))


def table(rows: Sequence[Repeats], measure: str, best: Repeats | None) -> list[str]:
    """Lines of 80 columns: two heads, then each row; the star marks the best one.

    Settings for which there is no room stand in a line below.

    Args:
        measure: the score that the rows are compared by, see outcomes.judged_by.
    """
    lines = _cells(rows, measure, between=" ± ")
    keys = list(_values(rows[0]))
    shown = len(keys)
    if _is_wide(lines):
        lines = [[cell.replace(" ± ", "±") for cell in line] for line in lines]
    while _is_wide(lines) and shown > FEW_VALUES:
        shown, lines = shown - 1, [[*line[: shown - 1], *line[shown:]] for line in lines]
    while _is_wide(short_lines := _fit(lines, shown)) and shown > 1:
        shown, lines = shown - 1, [[*line[: shown - 1], *line[shown:]] for line in lines]
    lines = short_lines
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    text = []
    for number, line in enumerate(lines):
        cells = [set_cell_size(cell, width) for cell, width in zip(line[:shown], widths[:shown], strict=True)]
        cells += [f"{cell:>{width}}" for cell, width in zip(line[shown:], widths[shown:], strict=True)]
        is_best = number > 1 and rows[number - 2] is best and len(rows) > 1
        text.append(("  ".join(cells) + (" *" if is_best else "")).rstrip())
    if keys[shown:]:
        text.append(_without_room(keys[shown:]))
    return text


def _without_room(keys: Sequence[str]) -> str:
    """A line of the settings that have no column, as many as it holds."""
    for count in range(len(keys), 0, -1):
        more = f", and {len(keys) - count} more settings differ" if count < len(keys) else ""
        line = f"no room for: {', '.join(keys[:count])}{more}"
        if cell_len(line) <= WIDTH:
            return line
    return f"no room for {len(keys)} settings that differ"


def legend(rows: Sequence[Repeats], measure: str) -> list[str]:
    """What the figures of the table are, as far as they are in it."""
    finished = [row for row in rows if row.finished_outcomes]
    repeated = [row for row in finished if row.method == "student"]
    single = [row for row in finished if row.method == "wilson"]
    counts = sorted({row.finished_outcomes[0].images_of(measure) for row in single} - {0})
    images = " to ".join(f"{count:,}" for count in dict.fromkeys([*counts[:1], *counts[-1:]]))
    what, score = score_title(measure).split(" ")
    text = ["±: standard deviation over the repeats"] if repeated else []
    intervals = [interval for row in repeated if (interval := row.interval(measure))]
    if any(map(_is_known, intervals)):
        text.append("95 %: interval of the mean over the repeats, Student's t")
    if not all(map(_is_known, intervals)):
        text.append("-: too few repeats for an interval that says anything")
    if len(repeated) + len(single) < len(finished):
        text.append(f"-: one run tells no interval of its {score}; repeat it, as with seed=0,1,2")
    return text + ([f"95 %: interval of one run's accuracy on {images} {what} images, Wilson's"] if counts else [])


def markdown(rows: Sequence[Repeats], measure: str, best: Repeats | None) -> str:
    """The same table for TensorBoard; the best row is bold."""
    head, second, *body = _cells(rows, measure, between=" ± ")
    heads = [f"{above} {below}".strip() for above, below in zip(head, second, strict=True)]
    lines = [heads, ["---"] * len(heads)]
    for row, cells in zip(rows, body, strict=True):
        lines.append([f"**{cell}**" for cell in cells] if row is best and len(rows) > 1 else cells)
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def _values(row: Repeats) -> dict[str, str]:
    """What names a row."""
    return row.values or {"model": row.outcomes[0].run.settings.model.heading}


def _cells(rows: Sequence[Repeats], measure: str, between: str) -> list[list[str]]:
    """The two heads, and the cells of each row."""
    times = [row.spread("train_seconds") for row in rows]
    longest = max((time.mean for time in times if time), default=0.0)
    seconds, unit, decimals = next(entry[1:] for entry in UNITS if longest >= entry[0])
    lines = [
        [*short_keys(_values(rows[0])), "runs", score_title(measure), "95 %", "time", "peak", "trained", "best"],
        [*[""] * len(_values(rows[0])), "", "%", "interval", unit, "memory", "params", "epoch"],
    ]
    for row, time in zip(rows, times, strict=True):
        memory, parameters = row.spread("peak_memory_bytes"), row.spread("trainable_parameters")
        epoch, finished, total = row.spread("best_epoch"), len(row.finished_outcomes), len(row.outcomes)
        cells = [
            str(finished) if finished == total else f"{finished}/{total}",
            _pair(row.spread(measure), 0.01, 2, between),
            _ends(row.interval(measure)),
            f"{time.mean / seconds:.{decimals}f}" if time else "-",
            _bytes(memory.mean) if memory else "-",
            short(round(parameters.mean), " ") if parameters else "-",
            f"{epoch.mean:.{int(total > 1 and epoch.mean < 100)}f}" if epoch else "-",
        ]
        lines.append([*_values(row).values(), *cells])
    return lines


def _pair(spread: Spread | None, unit: float, decimals: int, between: str) -> str:
    if spread is None:
        return "-"
    mean = f"{spread.mean / unit:.{decimals}f}"
    return mean if spread.std is None else f"{mean}{between}{spread.std / unit:.{decimals}f}"


def _ends(interval: Interval | None) -> str:
    """`75.3-83.6`, in per cent."""
    return f"{100 * interval.low:.1f}-{100 * interval.high:.1f}" if interval and _is_known(interval) else "-"


def _is_known(interval: Interval) -> bool:
    """Whether an interval says anything: one of two repeats may be wider than all that lies in between."""
    return interval.high - interval.low <= WIDEST_INTERVAL


def _bytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 999.5e6 else f"{count / 1e6:.0f} MB"


def _is_wide(lines: Sequence[Sequence[str]]) -> bool:
    """Whether a line, with two columns between its cells and the star, has more columns than there are."""
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    return sum(widths) + 2 * len(widths) > WIDTH


def _fit(lines: list[list[str]], value_columns: int) -> list[list[str]]:
    """The lines with listed values cut as far as it takes, or as they can be: first what all of a column have alike."""
    whole = [list(column) for column in zip(*lines, strict=True)]
    columns = [list(column) for column in whole]
    while _is_wide(list(zip(*columns, strict=True))):
        widths = [max(map(cell_len, column)) for column in columns[:value_columns]]
        widest = max(range(value_columns), key=lambda place: widths[place])
        if widths[widest] <= NARROWEST_VALUE:
            break
        head, *values = whole[widest]
        limit = widths[widest] - 1
        columns[widest] = [shorten(head, limit), *shorten_apart(values, limit)]
    return [list(line) for line in zip(*columns, strict=True)]


# --- what the picture is drawn from -----------------------------------------------------------------------------------


def points(metrics: Path, total: float = 0.0) -> list[Point]:
    """The epochs of a run from its metrics.csv; empty where that is gone.

    Args:
        total: seconds of the whole run; those that no epoch took, such as of encoding features, come first.
    """
    rows = list(rows_of(metrics, "epoch")) if metrics.exists() else []
    rows = [row for row in rows if row.get("seconds") and row.get(_score_of(row))]
    seconds = max(0.0, total - sum(float(row["seconds"]) for row in rows))
    result: list[Point] = []
    for row in rows:
        seconds += float(row["seconds"])
        result.append(Point(int(row["epoch"]), seconds, float(row[_score_of(row)])))
    return result


def _score_of(row: Mapping[str, str]) -> str:
    """The column of the validation score of a row, which is empty where nothing validates."""
    return f"val_{main_score(row, 'val_')}"


def curves_of(rows: Sequence[Repeats], measure: str, runs: Sequence[Sequence[Sequence[Point]]]) -> list[Curve]:
    """The rows that have finished a run, as far as its epochs are known.

    Args:
        runs: for each row, the epochs of its runs that are done.
    """
    curves = []
    for row, epochs in zip(rows, runs, strict=True):
        if finished_runs := [run for run in epochs if run]:
            name = " ".join(f"{key}={value}" for key, value in _values(row).items())
            score = _pair(row.spread(measure), 0.01, 2, " ± ")
            curves.append(Curve(name, f"{score_title(measure)} {score} %", finished_runs))
    return curves
