"""Figures through matplotlib, which is an extra: made without its global state, saved as a picture."""

from __future__ import annotations

from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError, MissingExtraError
from truthkit.files.writing import replacing, writing
from truthkit.printable import printable

ENDINGS = (".png", ".svg", ".pdf")
QUIET, RULE, INK = "#666a73", "#e3e3de", "#1b1d21"
"""Colours of axes and their numbers, of grids, and of text."""


def check_matplotlib() -> None:
    """Do nothing where matplotlib is installed.

    Raises:
        MissingExtraError: it is not.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError("plots need matplotlib: `pip install 'truthkit[plots]'`.")


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of so many inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: str | PathLike[str]) -> None:
    """Write a figure in the format that the ending names.

    Raises:
        ArgumentError: it names another.
        NotAvailableError: it can't be written, the disk is full for one.
    """
    if Path(path).suffix not in ENDINGS:
        raise ArgumentError(f"{str(path)!r}: plots are written as .png, .svg or .pdf.")
    with writing(Path(path)), replacing(Path(path)) as part:
        figure.savefig(part, dpi=150)


def bare(axes: Any, grid: str) -> None:
    """Take the frame from matplotlib's axes and leave a quiet grid: "x", "y" or "both"."""
    axes.spines[:].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=RULE, linewidth=0.8)
    axes.tick_params(colors=QUIET, labelcolor=INK, length=0)
    axes.xaxis.label.set_color(QUIET)
    axes.yaxis.label.set_color(QUIET)


def one_line(text: str, longest: int) -> str:
    """Any text as a label: on one line, without control characters, cut to so many characters."""
    text = " ".join(printable(text).split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
