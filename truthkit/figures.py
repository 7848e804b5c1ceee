"""Pictures by matplotlib, which is an extra, without its global state."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError, MissingExtraError

ENDINGS = (".png", ".svg", ".pdf")


def figure(width: float, height: float) -> Any:
    """An empty figure of so many inches, that pyplot does not know of.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError("plots need matplotlib: `pip install 'truthkit[plots]'`.")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: str | PathLike[str]) -> None:
    """Write a figure.

    Raises:
        ArgumentError: the ending is none of `ENDINGS`.
    """
    check(path)
    figure.savefig(path, dpi=150)


def check(path: str | PathLike[str]) -> None:
    """Raise what `save` would, before the work that leads to the figure."""
    if Path(path).suffix not in ENDINGS:
        raise ArgumentError(f"{str(path)!r}: plots are written as {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}.")


def intervals(axes: Any, names: Sequence[str], values: Sequence[float], ends: Sequence[tuple[float, float]]) -> None:
    """Values with their intervals, a line each, the first on top; what is first is drawn in grey as the baseline."""
    places = range(len(names))[::-1]
    for place, value, (low, high) in zip(places, values, ends, strict=True):
        colour = "grey" if place == len(names) - 1 else "C0"
        error = [[max(0.0, value - low)], [max(0.0, high - value)]]  # a percentile interval may leave its value out
        axes.errorbar([value], [place], xerr=error, fmt="o", markersize=4, capsize=2, color=colour)
    axes.axvline(values[0], color="grey", linestyle=":", linewidth=1)
    axes.set_yticks(list(places), names)
