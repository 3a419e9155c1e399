"""Line charts as SVG whose colours are those of the page: they read in light and in dark, and on a phone."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cnntrain.page.markup import Html, join, tag

WIDTH, HEIGHT = 360, 220  # of the picture, in units that are pixels on a phone
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 40  # around the axes
MOST_TICKS = 5
MOST_POINTS = 300  # of a line; more are averaged in groups
OUTLIER = 4  # times what nine of ten values keep below: beyond it the axis ends, and the line leaves it
STEPS = (1, 2, 2.5, 5, 10)
Point = tuple[float, float]
Form = Callable[[float], str]


def plain(value: float) -> str:
    """A number in a few letters."""
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e6 else f"{value:.3g}"


def percents(value: float) -> str:
    """A fraction of 1 as a tick."""
    return f"{100 * value:.3g} %"


@dataclass
class Line:
    """A curve; `kind` is its class in the style sheet: train, probe, val, one or ideal."""

    name: str
    kind: str
    points: Sequence[Point]


@dataclass
class Chart:
    """Curves over one axis.

    Attributes:
        title: of what is shown, with its unit.
        x_name: below the horizontal axis.
        form: how values are written.
        from_zero: the vertical axis begins at 0.
        high: where it ends; None: at the highest value, but for outliers.
        x_range: where the horizontal axis begins and ends; None: with the curves.
        mark: a place on the horizontal axis and its name.
    """

    title: str
    lines: Sequence[Line]
    x_name: str = "epoch"
    form: Form = plain
    x_form: Form = plain
    from_zero: bool = False
    high: float | None = None
    x_range: tuple[float, float] | None = None
    mark: tuple[float, str] | None = None
    note: str = ""
    _lines: list[Line] = field(init=False)

    def __post_init__(self) -> None:
        self._lines = [Line(line.name, line.kind, thin(line.points)) for line in self.lines if line.points]

    def draw(self) -> Html | None:
        """The figure with its legend; None where there is nothing to draw."""
        if not self._lines:
            return None
        xs = [x for line in self._lines for x, _ in line.points]
        ys = [y for line in self._lines for _, y in line.points]
        x_low, x_high = self.x_range or (min(xs), max(xs))
        if x_low == x_high:
            margin = max(0.5, x_low * 1e-9)  # half a step is nothing beside what a damaged file may hold
            x_low, x_high = x_low - margin, x_high + margin
        y_low, y_high = min([*ys, 0.0] if self.from_zero else ys), _highest(ys) if self.high is None else self.high
        y_ticks = ticks(y_low, y_high, MOST_TICKS)
        frame = _Frame((x_low, x_high), (y_ticks[0], y_ticks[-1]))
        x_ticks = [
            tick for tick in ticks(x_low, x_high, MOST_TICKS, whole=self.x_form is plain) if x_low <= tick <= x_high
        ]
        parts = [*self._axes(frame, x_ticks, y_ticks), *self._curves(frame)]
        picture = tag(
            "svg", tag("title", self.title), tag("desc", self.words()), *parts,
            viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{self.title}. {self.words()}", class_="chart",
        )  # fmt: skip
        legend = self._legend() if len(self._lines) > 1 or self.mark else None
        return tag("figure", tag("figcaption", tag("h3", self.title), legend), picture, self._note())

    def words(self) -> str:
        """What the curves show, for those who do not see them."""
        parts = [
            f"{line.name}: {self.form(line.points[0][1])} to {self.form(line.points[-1][1])}" for line in self._lines
        ]
        return "; ".join([*parts, *([self.mark[1]] if self.mark else [])])

    def _legend(self) -> Html:
        entries = [
            tag(
                "span",
                tag(
                    "svg",
                    tag("path", d="M0 6H22", class_=f"line {line.kind}"),
                    viewBox="0 0 22 12",
                    class_="key",
                    aria_hidden="true",
                ),
                " ",
                line.name,
            )
            for line in self._lines
        ]
        mark = (
            [
                tag(
                    "span",
                    tag(
                        "svg",
                        tag("path", d="M11 0V12", class_="mark"),
                        viewBox="0 0 22 12",
                        class_="key",
                        aria_hidden="true",
                    ),
                    " ",
                    self.mark[1],
                )
            ]
            if self.mark
            else []
        )
        return tag("div", *entries, *mark, class_="legend")

    def _note(self) -> Html | None:
        return tag("p", self.note, class_="note") if self.note else None

    def _axes(self, frame: "_Frame", x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[Html]:
        bottom, parts = HEIGHT - BOTTOM, []
        for tick in y_ticks:
            y = frame.y(tick)
            parts += [
                tag("path", d=f"M{LEFT} {y:.1f}H{WIDTH - RIGHT}", class_="grid"),
                tag("text", self.form(tick), x=LEFT - 6, y=f"{y + 4:.1f}", class_="tick end"),
            ]
        for tick in x_ticks:
            x = frame.x(tick)
            is_last = x > WIDTH - RIGHT - 12 and tick == x_ticks[-1]
            side, place = ("tick end", float(WIDTH)) if is_last else ("tick middle", round(x, 1))
            parts.append(tag("text", self.x_form(tick), x=place, y=bottom + 15, class_=side))
        middle = (LEFT + WIDTH - RIGHT) // 2
        parts.append(tag("text", self.x_name, x=middle, y=HEIGHT - 4, class_="tick middle"))
        return parts

    def _curves(self, frame: "_Frame") -> list[Html]:
        """The curves in a picture of their own, which cuts what leaves the axes."""
        parts = []
        if self.mark:
            x = frame.x(self.mark[0])
            parts.append(tag("path", d=f"M{x:.1f} {TOP}V{HEIGHT - BOTTOM}", class_="mark"))
        for line in self._lines:
            places = [f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in line.points]
            if len(places) == 1:
                cx, cy = places[0].split()
                parts.append(tag("circle", cx=cx, cy=cy, r=4, class_=f"dot {line.kind}"))
            parts.append(tag("path", d="M" + "L".join(places), class_=f"line {line.kind}"))
        size = {"x": LEFT - 3, "y": TOP - 3, "width": WIDTH - LEFT - RIGHT + 6, "height": HEIGHT - TOP - BOTTOM + 6}
        inner = f"{size['x']} {size['y']} {size['width']} {size['height']}"
        return [tag("svg", *parts, **size, viewBox=inner)]


@dataclass(frozen=True)
class _Frame:
    """From values to places."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        place = HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return max(-HEIGHT, min(place, 2.0 * HEIGHT))


def grid(charts: Sequence[Chart]) -> Html:
    """Charts beside each other, as many as there is room for."""
    return tag("div", join(chart.draw() for chart in charts), class_="charts")


def thin(points: Sequence[Point]) -> list[Point]:
    """At most MOST_POINTS points: of more, the means of neighbours, between the first and the last one."""
    if len(points) <= MOST_POINTS:
        return list(points)
    size = math.ceil(len(points) / (MOST_POINTS - 2))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    means = [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]
    return [points[0], *means, points[-1]]


def ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Round numbers from `low` or below to `high` or above, with at most `most` steps between them."""
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-3):
        margin = abs(high) / 10 or 1.0
        low, high = low - margin, high + margin
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (*STEPS, 20, 25, 50):
        step = factor * power
        if whole and step != round(step):
            continue
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= most:
            return [round(index * step, 12) for index in range(first, last + 1)]
    step = max(1.0, math.ceil((high - low) / most))
    return [index * step for index in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _highest(values: Sequence[float]) -> float:
    """The largest value; where few lie far above the others, what the others reach."""
    usual = sorted(values)[int(0.9 * (len(values) - 1))]
    return usual * OUTLIER if usual > 0 and max(values) > usual * OUTLIER else max(values)
