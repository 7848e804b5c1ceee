"""Quality against cost: where runs stand, as plain geometry, and as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from truthkit.evaluation.report.charts import colour, nice
from truthkit.evaluation.report.contents import Estimate, Section
from truthkit.evaluation.report.letters import fitted, text_width
from truthkit.evaluation.report.words import Scale, capital
from truthkit.markup import Markup, element, together

WIDTH, HEIGHT = 760, 320
LEFT, RIGHT, TOP, BOTTOM = 52, 36, 30, 46
_LINE = 15  # height of a label
_SIZE = 12.5  # of its font, as in the style sheet
_LONGEST = 230  # width of a label


_Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Place:
    """Where a label stands: its base line's start, middle or end, and whether a line leads there."""

    x: float
    y: float
    anchor: str
    lead: bool = False

    def box(self, width: float) -> _Box:
        left = self.x - {"start": 0.0, "middle": width / 2, "end": width}[self.anchor]
        return left, self.y - _LINE + 4, left + width, self.y + 4


@dataclass(frozen=True)
class Point:
    """A point of the plot.

    Attributes:
        name: what it is, whole.
        label: what stands beside it; nothing where it is empty.
        x, y: what it is of.
        class_: its colour's, in the style sheet.
        mark: its shape, around (0, 0).
    """

    name: str
    label: str
    x: Estimate
    y: Estimate
    class_: str
    mark: Markup


@dataclass(frozen=True)
class Plane:
    """The axes of a section's plot.

    Attributes:
        points: number of the entry, seconds per item, quality.
        x_ticks, y_ticks: where the lines of the grid are; the first and the last are the ends.
    """

    points: list[tuple[int, Estimate, Estimate]]
    x_ticks: list[float]
    y_ticks: list[float]


def plane(section: Section) -> Plane | None:
    """Where the runs of a section stand; None unless two of them have records, which say their cost."""
    points = [
        (number, entry.cost, entry.metrics[section.headline])
        for number, entry in enumerate(section.entries)
        if entry.cost is not None and section.headline in entry.metrics
    ]
    if len(points) < 2:
        return None
    high = max(ends(cost)[1] for _, cost, _ in points)
    lows, highs = zip(*(ends(quality) for _, _, quality in points), strict=True)
    return Plane(points, ticks(0.0, high), ticks(min(lows), max(highs)))


def ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers that span these."""
    step = nice((high - low) / 5 or 1.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * i for i in range(first, max(last, first + 1) + 1)]


def svg(section: Section, axes: Plane) -> Markup:
    """The plot."""
    points = [
        Point(entry.label, shortened(entry.label), cost, quality, colour(section, number), element("circle", r=5.5))
        for number, cost, quality in axes.points
        for entry in [section.entries[number]]
    ]
    return scatter(points, axes.x_ticks, axes.y_ticks, section.scale(), "seconds per item", chance=section.chance())


def scatter(
    points: Sequence[Point],
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    scale: Scale,
    x_title: str,
    *,
    chance: float | None = None,
) -> Markup:
    """Points with their intervals and labels.

    Args:
        points: of the plot.
        x_ticks: where the x-axis has numbers; it goes from 0 to the last.
        y_ticks: where the lines of the grid are; the first and the last are the ends.
        scale: how y is written.
        x_title: what x is.
        chance: what guessing scores, to be marked.
    """

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / x_ticks[-1]

    def y(value: float) -> float:
        low, high = y_ticks[0], y_ticks[-1]
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    grid = [
        together(
            element("line", x1=LEFT, x2=right, y1=_round(y(tick)), y2=_round(y(tick)), class_="grid"),
            _text(LEFT - 8, y(tick) + 4, scale.tick(tick), "tick", anchor="end"),
        )
        for tick in y_ticks
    ]
    grid += [_text(x(tick), bottom + 18, f"{tick:.3g}", "tick", anchor="middle") for tick in x_ticks]
    grid.append(_text((LEFT + right) / 2, HEIGHT - 8, x_title, "axis-title", anchor="middle"))
    if chance is not None and y_ticks[0] < chance < y_ticks[-1]:
        grid.append(_line(LEFT, y(chance), right, y(chance), "guess"))
        grid.append(_text(right, y(chance) - 5, "chance", "tick", anchor="end"))
    grid.append(_text(0, 12, capital(scale.title), "axis-title", anchor="start"))
    places = place([(x(point.x.value), y(point.y.value)) for point in points], [point.label for point in points])
    marks = []
    for point, label in zip(points, places, strict=True):
        at = x(point.x.value), y(point.y.value)
        (left, far), (low, high) = ends(point.x), ends(point.y)
        marks.append(
            element(
                "g",
                element("title", point.name),
                _line(x(left), at[1], x(far), at[1], "span"),
                _line(at[0], y(low), at[0], y(high), "span"),
                _line(*at, label.x, label.y - 4, "lead") if label.lead and point.label else None,
                element("g", point.mark, transform=f"translate({_round(at[0])} {_round(at[1])})"),
                _text(label.x, label.y, point.label, "label", anchor=label.anchor) if point.label else None,
                class_=point.class_,
            )
        )
    name = f"{scale.title} against {x_title}; the numbers are in the tables"
    return element("svg", *grid, *marks, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=name, class_="plot")


def ends(estimate: Estimate) -> tuple[float, float]:
    """Where its interval ends; the value itself where it has none."""
    interval = estimate.interval
    return (interval.low, interval.high) if interval else (estimate.value, estimate.value)


def place(points: Sequence[tuple[float, float]], labels: Sequence[str]) -> list[Place]:
    """For every point's label the nearest place where it covers no point and no other label."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    found = []
    for (x, y), label in zip(points, labels, strict=True):
        width = text_width(label, _SIZE)
        places = [Place(x + 8, y - 7, "start"), Place(x + 8, y + 17, "start")]
        places += [Place(x - 8, y - 7, "end"), Place(x - 8, y + 17, "end")]
        for far in range(24, HEIGHT, 6):
            sides = ((x + 16, "start"), (x - 16, "end"))
            places += [Place(at, y + 4 + up, anchor, True) for up in (-far, far) for at, anchor in sides]
        place = next((place for place in places if _free(place.box(width), taken)), places[0])
        taken.append(place.box(width))
        found.append(place)
    return found


def _free(box: _Box, taken: Sequence[_Box]) -> bool:
    if box[0] < LEFT or box[2] > WIDTH or box[1] < 0 or box[3] > HEIGHT - BOTTOM:
        return False
    return all(box[2] < other[0] or other[2] < box[0] or box[3] < other[1] or other[3] < box[1] for other in taken)


def shortened(label: str) -> str:
    """A label that has room in a plot."""
    return fitted(label, _LONGEST, _SIZE)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=_round(x1), y1=_round(y1), x2=_round(x2), y2=_round(y2), class_=class_)


def _text(x: float, y: float, text: str, class_: str, *, anchor: str) -> Markup:
    return element("text", text, x=_round(x), y=_round(y), text_anchor=anchor, class_=class_)


def _round(value: float) -> float:
    return round(value, 1)
