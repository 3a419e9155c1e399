"""The parts of the page that a run folder alone can fill: what it was, how it went, and how to go on."""

import math
import shlex
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace

from cnntrain.config.changes import yaml_word
from cnntrain.config.plain import to_yaml
from cnntrain.config.schema.scores import MAIN, TITLES
from cnntrain.page.chart import Chart, Line, grid, percents
from cnntrain.page.history import History, Row
from cnntrain.page.markup import Html, breakable, code_words, fold, lines, section, table, tag
from cnntrain.page.rules import Finding
from cnntrain.page.run import Run, differences
from cnntrain.text import clock, number, percent, rate, short_path, shorten

LEAST_WAIT = 0.1  # of the time, where the axis of the waiting ends: less is no matter
FEW_EPOCHS = 10  # of fewer, the training loss is drawn by step
SCORE_CHARTS = {"top1": "Top-1: images that are right", "map": "mAP: mean average precision of the labels"}
MOST_COMMANDS, MOST_ROWS = 20, 300
LONGEST_VALUE = 300  # characters of a value of the config in the table


# --- the head ---------------------------------------------------------------------------------------------------------


def findings(found: Sequence[Finding]) -> Html:
    """What stands out, in plain words."""
    if not found:
        words = (
            "Nothing stands out: no sign of over-fitting, under-fitting, an unstable loss, a class that is never "
            "predicted, skewed classes, waiting for data, or an end that came too early."
        )
        return section("findings", "Findings", tag("p", words))
    items = [
        tag("li", tag("h3", one.title), tag("p", one.figure), tag("p", tag("b", "Next: "), code_words(one.advice)))
        for one in found
    ]
    return section("findings", "Findings", tag("ul", *items, class_="findings"))


def missing(notes: Sequence[str]) -> Html | None:
    """What the page cannot show, and why."""
    if not notes:
        return None
    return section("missing", "Notes", *(tag("p", code_words(note), class_="missing") for note in notes))


# --- curves -----------------------------------------------------------------------------------------------------------


def curves(run: Run) -> Html | None:
    """Training against validation, with the best epoch; rate and speed."""
    epochs, steps = run.history.epochs, run.history.steps
    if not run.history.rows:
        return None
    axis = _Axis(epochs, steps)
    best = run.best_epoch
    mark = (float(best), f"best epoch {best}") if best and axis.name == "epoch" else None
    by_step = len(epochs) < FEW_EPOCHS and len(steps) > len(epochs)
    train = steps if by_step else epochs
    probe = "training, without augmentation"
    charts = [
        Chart(
            "Loss",
            [
                Line("training", "train", axis.points(train, "loss")),
                Line(probe, "probe", axis.points(epochs, "probe_loss")),
                Line("validation", "val", axis.points(epochs, "val_loss")),
            ],
            axis.name,
            from_zero=True,
            mark=mark,
        ),
        Chart(
            SCORE_CHARTS[run.history.measure],
            [
                Line("training", "train", axis.points(train, "score")),
                Line(probe, "probe", axis.points(epochs, "probe_score")),
                Line("validation", "val", axis.points(epochs, "val_score")),
            ],
            axis.name,
            percents,
            mark=mark,
        ),
        Chart(
            "Learning rate",
            [Line("rate", "one", axis.points(steps if len(steps) > len(epochs) else epochs, "lr"))],
            axis.name,
            from_zero=True,
        ),
        Chart(
            "Time spent waiting for images",
            [Line("share", "one", axis.points(steps, "data_wait"))],
            axis.name,
            percents,
            from_zero=True,
            high=max([LEAST_WAIT, *(row.data_wait or 0.0 for row in steps)]),
        ),
    ]
    if xs := [x for chart in charts for line in chart.lines for x, _ in line.points]:
        charts = [replace(chart, x_range=(min(xs), max(xs))) for chart in charts]
    note = "The training curve is of the images as augmented, while the network learned: it may lie below validation."
    words = tag("p", note, class_="about") if run.settings.augment.pieces else None
    return section("curves", "Curves", words, grid(charts), _epoch_table(run.history, best))


class _Axis:
    """Steps as epochs; as steps, where no epoch has ended."""

    def __init__(self, epochs: Sequence[Row], steps: Sequence[Row]) -> None:
        self.ends = [(0, 0.0)]
        for row in epochs:
            if row.step > self.ends[-1][0]:
                self.ends.append((row.step, float(row.epoch)))
        self.name = "epoch" if len(self.ends) > 1 else "step"

    def points(self, rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
        """The values of a column that are there, by the place of their rows."""
        return [(self.place(row), value) for row in rows if (value := getattr(row, key)) is not None]

    def place(self, row: Row) -> float:
        """An epoch counts where it ends."""
        if self.name == "step":
            return float(row.step)
        index = min(max(bisect_left(self.ends, (row.step, -math.inf)), 1), len(self.ends) - 1)
        (start, first), (end, last) = self.ends[index - 1], self.ends[index]
        return first + (row.step - start) * (last - first) / (end - start)


def _epoch_table(history: History, best: int | None) -> Html | None:
    epochs, score = history.epochs, TITLES[history.measure]
    if not epochs:
        return None
    stride = -(-len(epochs) // MOST_ROWS)
    columns: dict[str, Callable[[Row], object]] = {
        "epoch": lambda row: f"{row.epoch} (best)" if row.epoch == best else row.epoch,
        "loss": lambda row: number(row.loss),
        score: lambda row: percent(row.score),
        f"probe {score}": lambda row: percent(row.probe_score),
        "val loss": lambda row: number(row.val_loss),
        f"val {score}": lambda row: percent(row.val_score),
        "rate": lambda row: "-" if row.lr is None else f"{row.lr:.3g}",
        "images/s": lambda row: rate(row.images_per_second),
        "time": lambda row: clock(row.seconds),
    }
    if history.measure != MAIN[0]:
        del columns[score]  # which takes all images at once, as they are
    heads = list(columns)
    rows = [
        [cell(row) for cell in columns.values()]
        for place, row in enumerate(epochs)
        if place % stride == stride - 1 or row.epoch == best or row is epochs[-1]
    ]
    title = f"All {len(rows):,} epochs" if stride == 1 else f"{len(rows):,} of {len(epochs):,} epochs"
    return fold(f"{title} as a table" if len(epochs) > 1 else "The epoch as a table", table(heads, rows))


# --- how to go on -----------------------------------------------------------------------------------------------------


def next_steps(run: Run) -> Html | None:
    """Commands that do something, each with what it is good for; None of a finished run that has lost its network."""
    folder = short_path(run.folder)
    code = run.settings.users_code(training=False)
    entries = []
    if run.has_checkpoint:
        predict = ["predict", folder, "images=PHOTOS", *run.settings.users_code(training=False, images=False)]
        export = ["export", folder, "format=onnx", *run.settings.users_code(training=False, images=False)]
        entries += [
            (predict, "the classes of other pictures; put a file or a folder in the place of PHOTOS"),
            (export, "the network as one file for other programs"),
            (["eval", folder, *code], "all scores, as JSON with out=FILE.json"),
            (["explain", folder, *code], "more pictures of what the network sees"),
        ]
    is_done = run.results.get("status") == "done"
    if run.has_checkpoint or not is_done:
        words = ["resume", folder, *_longer(run), *run.settings.users_code()]
        entries.append((words, "train longer" if is_done else "go on where the run stopped"))
    if not entries:
        return None
    items = [tag("li", lines(shlex.join(["cnntrain", *words])), what) for words, what in entries]
    return section("next", "How to go on", tag("ul", *items, class_="steps"))


def _longer(run: Run) -> list[str]:
    """The limit that ended the run, further away; nothing where the run has not come to its end."""
    trainer, rows = run.settings.trainer, run.history.epochs
    further = {"epochs": str(2 * trainer.epochs), "early_stop": "null", "max_time": "null"}
    further["max_steps"] = str(2 * rows[-1].step) if rows else "null"
    return [f"trainer.{run.ended}={further[run.ended]}"] if run.ended in further else []


# --- how it was made --------------------------------------------------------------------------------------------------


def config(run: Run) -> Html:
    """What differs from the defaults, and all of it."""
    changes = differences(run.settings)
    rows = [
        (
            tag("code", breakable(key, "._")),
            breakable(shorten(yaml_word(change.after), LONGEST_VALUE)),
            _default(change.before),
        )
        for key, change in changes.items()
    ]
    about = tag(
        "p",
        "What is not cnntrain's default, by choice of the data set's recipe or of the command line:",
        class_="about",
    )
    whole = fold("The whole config", lines(to_yaml(run.settings)))
    return section("config", "Config", about, table(["key", "value", "default"], rows, words=3), whole)


def _default(value: object) -> str:
    return "-" if value in (None, "", "???") else shorten(yaml_word(value), LONGEST_VALUE)


def origin(run: Run) -> Html:
    """The command and the environment."""
    commands = run.commands or ("not known",)
    content = "\n".join([*commands[:MOST_COMMANDS], *(["…"] if len(commands) > MOST_COMMANDS else [])])
    environment = run.environment
    facts = {name: environment.get(name) for name in ("started", "device", "processes", "platform", "cpu_count")}
    versions = environment.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    git = environment.get("git")
    if isinstance(git, dict):
        facts["git"] = f"{git.get('commit')}{' with changes' if git.get('dirty') else ''}"
    rows = [(name.replace("_", " "), value) for name, value in facts.items() if value is not None]
    rows += [(name, versions[name]) for name in ("cnntrain", "python", "torch") if name in versions]
    others = [(name, version) for name, version in versions.items() if name not in ("cnntrain", "python", "torch")]
    return section(
        "origin", "Command and environment",
        tag("div", lines(content), class_="commands"),
        table(["", ""], rows, words=2) if rows else None,
        fold("Other packages", table(["package", "version"], others, words=2)) if others else None,
    )  # fmt: skip
