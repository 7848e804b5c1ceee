"""Quality against cost: where a set's rows stand."""

from __future__ import annotations

import math
from dataclasses import dataclass

from truthkit.evaluation.report.contents import Estimate
from truthkit.evaluation.report.plane import Point, ends, scatter, shortened, ticks
from truthkit.markup import Markup
from truthkit.study.pages.contents import EvalSet, Row
from truthkit.study.pages.marks import shape, verdict_class

_MOST = 24  # labels; with more rows only those get one that no other row is both cheaper and better than


@dataclass(frozen=True)
class Plane:
    """A set's rows by cost and quality.

    Attributes:
        rows: those whose cost and quality are known.
        labels: what stands beside them; nothing beside some, where they are many.
        left_out: how many rows have no known cost or quality.
        x_ticks, y_ticks: round numbers that span both.
        chance: to mark; None where it is unknown or off the axis.
    """

    rows: list[Row]
    labels: list[str]
    left_out: int
    x_ticks: list[float]
    y_ticks: list[float]
    chance: float | None


def plane(one: EvalSet) -> Plane | None:
    """The plot of a set; None unless two of its rows have a known cost."""
    rows = [row for row in one.rows if math.isfinite(row.cost) and math.isfinite(row.value.value)]
    if len(rows) < 2:
        return None
    lows, highs = zip(*(ends(row.value) for row in rows), strict=True)
    y_ticks = ticks(min(lows), max(highs))
    labelled = rows if len(rows) <= _MOST else _best(one, rows)
    return Plane(
        rows,
        [shortened(row.label) if row in labelled else "" for row in rows],
        len(one.rows) - len(rows),
        ticks(0.0, max(row.cost for row in rows)),
        y_ticks,
        one.chance if y_ticks[0] <= one.chance <= y_ticks[-1] else None,
    )


def svg(one: EvalSet, found: Plane) -> Markup:
    """The plot."""
    points = [
        Point(row.label, label, Estimate(row.cost, None), row.value, verdict_class(row.verdict), shape(row.role))
        for row, label in zip(found.rows, found.labels, strict=True)
    ]
    return scatter(points, found.x_ticks, found.y_ticks, one.scale, X_TITLE, chance=found.chance)


X_TITLE = "time per item as a multiple of greedy's"


def note(one: EvalSet, found: Plane) -> str:
    """How it is to be read."""
    better = {1: "Upper left is better.", -1: "Lower left is better.", 0: ""}[one.scale.metric.better]
    parts = [better, "Whiskers are intervals of the values."]
    if found.chance is not None:
        parts.append("The dotted line is chance.")
    if not all(found.labels):
        parts.append("Labelled are the rows that no other one is both cheaper and better than; the others say theirs.")
    if found.left_out:
        parts.append(f"Without a known cost, and so not shown: {found.left_out}.")
    return " ".join(filter(None, parts))


def _best(one: EvalSet, rows: list[Row]) -> list[Row]:
    """Rows that no other one is both cheaper and better than, cheapest first."""
    found: list[Row] = []
    sign = one.scale.metric.better or 1
    for row in sorted(rows, key=lambda row: (row.cost, -sign * row.value.value)):
        if not found or sign * row.value.value > sign * found[-1].value.value:
            found.append(row)
    return found
