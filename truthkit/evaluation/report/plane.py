"""Quality against cost: where runs stand, as plain geometry, and as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from truthkit.evaluation.report.charts import colour, nice
from truthkit.evaluation.report.contents import Estimate, Section
from truthkit.evaluation.report.markup import Markup, element, together
from truthkit.evaluation.report.words import metric_title

WIDTH, HEIGHT = 760, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 190, 14, 46
_LINE = 17  # between two labels
_LONGEST = 28  # characters of a label


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
    costs, qualities = ([point[axis] for point in points] for axis in (1, 2))
    high = max(_ends(cost)[1] for cost in costs)
    lows, highs = zip(*map(_ends, qualities), strict=True)
    return Plane(points, ticks(0.0, high), ticks(min(lows), max(highs)))


def ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers that span these."""
    step = nice((high - low) / 5 or 1.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * i for i in range(first, max(last, first + 1) + 1)]


def svg(section: Section, axes: Plane) -> Markup:
    """The plot."""

    def x(value: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * value / axes.x_ticks[-1]

    def y(value: float) -> float:
        low, high = axes.y_ticks[0], axes.y_ticks[-1]
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (value - low) / (high - low)

    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    grid = [
        together(
            element("line", x1=_LEFT, x2=right, y1=_round(y(tick)), y2=_round(y(tick)), class_="grid"),
            _text(_LEFT - 8, y(tick) + 4, section.scale.value(tick).removesuffix(".0"), "tick", anchor="end"),
        )
        for tick in axes.y_ticks
    ]
    grid += [_text(x(tick), bottom + 18, f"{tick:.3g}", "tick", anchor="middle") for tick in axes.x_ticks]
    title = f"{metric_title(section.headline)}{section.scale.unit and ', %'}"
    grid.append(_text((_LEFT + right) / 2, HEIGHT - 8, "seconds per item", "axis-title", anchor="middle"))
    marks = []
    heights = _apart([y(quality.value) for _, _, quality in axes.points])
    for (number, cost, quality), height in zip(axes.points, heights, strict=True):
        at = x(cost.value), y(quality.value)
        (left, far), (low, high) = _ends(cost), _ends(quality)
        label = section.entries[number].label
        shown = label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
        marks.append(
            element(
                "g",
                element("title", label),
                _line(x(left), at[1], x(far), at[1], "span"),
                _line(at[0], y(low), at[0], y(high), "span"),
                _line(at[0], at[1], right + 8, height, "lead"),
                element("circle", cx=_round(at[0]), cy=_round(at[1]), r=5.5),
                _text(right + 13, height + 4, shown, "label", anchor="start"),
                class_=colour(section, number),
            )
        )
    name = f"{title} against seconds per item; the numbers are in the tables"
    return element("svg", *grid, *marks, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=name, class_="plot")


def _ends(estimate: Estimate) -> tuple[float, float]:
    interval = estimate.interval
    return (interval.low, interval.high) if interval else (estimate.value, estimate.value)


def _apart(heights: Sequence[float]) -> list[float]:
    """Heights of labels, near these and at least a line apart, within the plot."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed: list[float] = []
    for i in order:
        placed.append(max(heights[i], placed[-1] + _LINE) if placed else max(heights[i], _TOP + 4))
    floor = float(HEIGHT - _BOTTOM)
    for place in reversed(range(len(placed))):
        placed[place] = floor = min(placed[place], floor)
        floor -= _LINE
    found = [0.0] * len(heights)
    for i, height in zip(order, placed, strict=True):
        found[i] = height
    return found


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=_round(x1), y1=_round(y1), x2=_round(x2), y2=_round(y2), class_=class_)


def _text(x: float, y: float, text: str, class_: str, *, anchor: str) -> Markup:
    return element("text", text, x=_round(x), y=_round(y), text_anchor=anchor, class_=class_)


def _round(value: float) -> float:
    return round(value, 1)
