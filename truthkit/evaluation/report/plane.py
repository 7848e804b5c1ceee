"""Quality against cost: where runs stand, as plain geometry, and as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from truthkit.evaluation.report.charts import colour, nice
from truthkit.evaluation.report.contents import Estimate, Section
from truthkit.evaluation.report.letters import fitted, text_width
from truthkit.evaluation.report.words import capital
from truthkit.markup import Markup, element, together

WIDTH, HEIGHT = 760, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 36, 30, 46
_LINE = 15  # height of a label
_SIZE = 12.5  # of its font, as in the style sheet
_LONGEST = 230  # width of a label


_Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class _Place:
    """Where a label stands: its base line's start, middle or end, and whether a line leads there."""

    x: float
    y: float
    anchor: str
    lead: bool = False

    def box(self, width: float) -> _Box:
        left = self.x - {"start": 0.0, "middle": width / 2, "end": width}[self.anchor]
        return left, self.y - _LINE + 4, left + width, self.y + 4


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
    high = max(_ends(cost)[1] for _, cost, _ in points)
    lows, highs = zip(*(_ends(quality) for _, _, quality in points), strict=True)
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
            _text(_LEFT - 8, y(tick) + 4, section.scale().tick(tick), "tick", anchor="end"),
        )
        for tick in axes.y_ticks
    ]
    grid += [_text(x(tick), bottom + 18, f"{tick:.3g}", "tick", anchor="middle") for tick in axes.x_ticks]
    chance = section.chance()
    if chance is not None and axes.y_ticks[0] < chance < axes.y_ticks[-1]:
        grid.append(_line(_LEFT, y(chance), right, y(chance), "guess"))
        grid.append(_text(right, y(chance) - 5, "chance", "tick", anchor="end"))
    title = section.scale().title
    grid.append(_text((_LEFT + right) / 2, HEIGHT - 8, "seconds per item", "axis-title", anchor="middle"))
    grid.append(_text(0, 12, capital(title), "axis-title", anchor="start"))
    labels = [fitted(section.entries[number].label, _LONGEST, _SIZE) for number, _, _ in axes.points]
    places = _place([(x(cost.value), y(quality.value)) for _, cost, quality in axes.points], labels)
    marks = []
    for (number, cost, quality), label, place in zip(axes.points, labels, places, strict=True):
        at = x(cost.value), y(quality.value)
        (left, far), (low, high) = _ends(cost), _ends(quality)
        lead = _line(*at, place.x, place.y - 4, "lead") if place.lead else None
        marks.append(
            element(
                "g",
                element("title", section.entries[number].label),
                _line(x(left), at[1], x(far), at[1], "span"),
                _line(at[0], y(low), at[0], y(high), "span"),
                lead,
                element("circle", cx=_round(at[0]), cy=_round(at[1]), r=5.5),
                _text(place.x, place.y, label, "label", anchor=place.anchor),
                class_=colour(section, number),
            )
        )
    name = f"{title} against seconds per item; the numbers are in the tables"
    return element("svg", *grid, *marks, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=name, class_="plot")


def _ends(estimate: Estimate) -> tuple[float, float]:
    interval = estimate.interval
    return (interval.low, interval.high) if interval else (estimate.value, estimate.value)


def _place(points: Sequence[tuple[float, float]], labels: Sequence[str]) -> list[_Place]:
    """For every point's label the nearest place where it covers no point and no other label."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    found = []
    for (x, y), label in zip(points, labels, strict=True):
        width = text_width(label, _SIZE)
        places = [_Place(x + 8, y - 7, "start"), _Place(x + 8, y + 17, "start")]
        places += [_Place(x - 8, y - 7, "end"), _Place(x - 8, y + 17, "end")]
        for far in range(24, HEIGHT, 6):
            sides = ((x + 16, "start"), (x - 16, "end"))
            places += [_Place(at, y + 4 + up, anchor, True) for up in (-far, far) for at, anchor in sides]
        place = next((place for place in places if _free(place.box(width), taken)), places[0])
        taken.append(place.box(width))
        found.append(place)
    return found


def _free(box: _Box, taken: Sequence[_Box]) -> bool:
    if box[0] < _LEFT or box[2] > WIDTH or box[1] < 0 or box[3] > HEIGHT - _BOTTOM:
        return False
    return all(box[2] < other[0] or other[2] < box[0] or box[3] < other[1] or other[3] < box[1] for other in taken)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=_round(x1), y1=_round(y1), x2=_round(x2), y2=_round(y2), class_=class_)


def _text(x: float, y: float, text: str, class_: str, *, anchor: str) -> Markup:
    return element("text", text, x=_round(x), y=_round(y), text_anchor=anchor, class_=class_)


def _round(value: float) -> float:
    return round(value, 1)
