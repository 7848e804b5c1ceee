"""Bars and differences of the page, in HTML that takes its colours from the style sheet and its width from the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from truthkit.evaluation.report.contents import Estimate, Section
from truthkit.evaluation.report.words import Scale
from truthkit.markup import Markup, element, together
from truthkit.statistics.intervals import Difference

Row = tuple[int, Estimate, float | None]
"""Number of an entry, its value, and the value to mark for comparison."""

_COLOURS = 8  # in the style sheet; the baseline has its own


def colour(section: Section, number: int) -> str:
    """The class that colours a section's entry of this number."""
    return "c0" if section.entries[number] is section.baseline else f"c{(number - 1) % _COLOURS + 1}"


def top(estimates: Sequence[Estimate], scale: Scale) -> float:
    """The end of an axis that starts at 0 and holds these values with their intervals."""
    known = [e for e in estimates if math.isfinite(e.value)]
    most = max((max(e.value, e.interval.high if e.interval else 0.0) for e in known), default=0.0)
    if scale.metric.share and most > 0.5:
        return 1.0
    return nice(most)


def nice(value: float) -> float:
    """The next number of 1, 2, 2.5 or 5 times a power of ten."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * 0.999)


def bar(
    estimate: Estimate, end: float, colour_class: str, *, mark: float | None = None, chance: float | None = None
) -> Markup:
    """A bar from 0, its interval as a whisker, a mark at a value of comparison, and one at what guessing scores."""
    interval = estimate.interval
    return element(
        "span",
        element("span", class_="fill", style=f"width:{_percent(estimate.value, end)}"),
        element(
            "span",
            class_="whisker",
            style=f"left:{_percent(interval.low, end)};width:{_percent(interval.high - interval.low, end)}",
        )
        if interval
        else None,
        *[
            element("span", class_=name, style=f"left:{_percent(value, end)}")
            for name, value in (("mark", mark), ("chance", chance))
            if value is not None and value <= end
        ],
        class_=f"bar {colour_class}",
        aria_hidden="true",
    )


def bars(section: Section, rows: Sequence[Row], scale: Scale, end: float, *, chance: float | None = None) -> Markup:
    """A row for every entry: its label, its bar, its value; `chance` is marked in all of them."""
    lines = [
        together(
            element("span", section.entries[number].label, class_="name"),
            bar(estimate, end, colour(section, number), mark=mark, chance=chance),
            element("span", scale.value(estimate.value), class_="figure"),
        )
        for number, estimate, mark in rows
    ]
    ticks = [element("span", scale.tick(end * i / 4)) for i in range(5)]
    axis = element("span", *ticks, class_="axis")
    return element("div", *lines, element("span"), axis, element("span", scale.unit), class_="bars")


def lift(difference: Difference, reach: float, colour_class: str) -> Markup:
    """A paired difference on an axis with 0 in the middle and `reach` at both ends."""

    def place(value: float) -> str:
        return _percent(min(max(value, -reach), reach) + reach, 2 * reach)

    width = _percent(min(difference.high, reach) - max(difference.low, -reach), 2 * reach)
    return element(
        "span",
        element("span", class_="whisker", style=f"left:{place(difference.low)};width:{width}"),
        element("span", class_="dot", style=f"left:{place(difference.value)}"),
        class_=f"lift {colour_class}",
        aria_hidden="true",
    )


def _percent(value: float, end: float) -> str:
    """As a share of an axis, kept on it."""
    return f"{100 * min(max(value / end, 0.0), 1.0) if math.isfinite(value) else 0.0:.2f}%"
