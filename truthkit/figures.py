"""Pictures by matplotlib, which is an extra, without its global state."""

from __future__ import annotations

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
