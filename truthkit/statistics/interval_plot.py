"""Figures of several methods with their intervals, one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def draw_intervals(axes: Any, names: Sequence[str], values: Sequence[float], ends: Sequence[Sequence[float]]) -> None:
    """A line for each value with its interval, the first on top, in grey: the baseline, which a dotted line extends.

    Args:
        axes: of matplotlib.
        names: what stands beside the lines.
        values: one for each name.
        ends: the low and the high end of each interval.
    """
    places = range(len(names))[::-1]
    for place, value, (low, high) in zip(places, values, ends, strict=True):
        colour = "grey" if place == len(names) - 1 else "C0"
        error = [[max(0.0, value - low)], [max(0.0, high - value)]]  # a percentile interval may leave its value out
        axes.errorbar([value], [place], xerr=error, fmt="o", markersize=4, capsize=2, color=colour)
    axes.axvline(values[0], color="grey", linestyle=":", linewidth=1)
    axes.set_yticks(list(places), names)
