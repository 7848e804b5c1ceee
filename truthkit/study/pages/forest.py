"""Differences from greedy with their intervals, one below the other, on an axis that has the margin as a band."""

from __future__ import annotations

import math
from collections.abc import Sequence

from truthkit.evaluation.report.plane import ticks
from truthkit.markup import Markup, element, together
from truthkit.study.pages import words
from truthkit.study.pages.contents import EvalSet, Row, Study
from truthkit.study.pages.marks import SIGN, breakable, key, shape, verdict_class, word


def axis(one: EvalSet) -> list[float]:
    """Round numbers that span all differences of a set, zero and the margin."""
    ends = [0.0]
    if math.isfinite(one.margin):
        ends += [-one.margin, one.margin]
    for row in one.compared:
        if row.greedy is not None:
            value, interval = row.greedy.difference
            ends += [end for end in (value, *(interval or ())) if math.isfinite(end)]
    return ticks(min(ends), max(ends))


def forest(study: Study, one: EvalSet) -> Markup:
    """The chart: a line for every row that stands beside greedy."""
    at = axis(one)
    lines = [_line(study, one, row, at) for row in one.compared]
    numbers = [
        element("span", words.tick(one.scale, tick), style=f"left:{_place(tick, at)}")
        for tick in (at if len(at) <= 6 else at[::2])
    ]
    return element("div", *lines, element("span"), element("span", *numbers, class_="ticks"), class_="forest")


def directions(one: EvalSet) -> str:
    """Which side is good."""
    return {1: "Right of zero is better.", -1: "Left of zero is better.", 0: ""}[one.scale.metric.better]


def _line(study: Study, one: EvalSet, row: Row, at: Sequence[float]) -> Markup:
    assert row.greedy is not None
    difference = row.greedy.difference
    shown = f"{one.scale.difference(difference.value)}{SIGN if study.significant(row.greedy) else ''}"
    interval = words.span(one.scale, difference)
    return together(
        element("span", key(row.role, row.verdict), element("span", breakable(row.label)), class_="name"),
        _strip(one, row, at),
        element(
            "span",
            element("b", shown),
            element("small", interval) if interval else None,
            element("em", word(row), class_=verdict_class(row.verdict)),
            class_="figures",
        ),
    )


def _strip(one: EvalSet, row: Row, at: Sequence[float]) -> Markup:
    assert row.greedy is not None
    value, interval = row.greedy.difference
    parts: list[Markup] = []
    if math.isfinite(one.margin):
        parts.append(element("span", class_="band", style=_between(-one.margin, one.margin, at)))
    parts.append(element("span", class_="zero", style=f"left:{_place(0.0, at)}"))
    if interval is not None:
        parts.append(element("span", class_="reach", style=_between(*interval, at)))
    if math.isfinite(value):
        mark = element("svg", shape(row.role), viewBox="-8 -8 16 16", class_="shape")
        parts.append(element("span", mark, class_="at", style=f"left:{_place(value, at)}"))
    return element("span", *parts, class_=f"strip {verdict_class(row.verdict)}", aria_hidden="true")


def _place(value: float, at: Sequence[float]) -> str:
    return f"{100 * (value - at[0]) / (at[-1] - at[0]):.2f}%"


def _between(low: float, high: float, at: Sequence[float]) -> str:
    return f"left:{_place(low, at)};width:{100 * (high - low) / (at[-1] - at[0]):.2f}%"
