"""What a study's pictures have in common: labels, marks, a legend, and the size of a page of many rows."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from truthkit.evaluation.report.letters import text_width
from truthkit.figures import INK, QUIET, new_figure, one_line, save_figure
from truthkit.study.pages.contents import CONTROL, ROLES, VERDICTS, Row
from truthkit.study.pages.marks import COLOURS, MARKERS

BAND = "#dcefe9"
_LINES, _LETTERS = 2, 38  # of a label
_TALLEST = 200.0  # inches, of what Agg can draw


def label(text: str, letters: int = _LETTERS) -> str:
    """A label on at most two lines; of a longer one the beginning and the end."""
    text = one_line(text, 10_000)
    most = _LINES * letters
    if len(text) > most:
        text = f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"
    if len(text) <= letters:
        return text
    return "\n".join(textwrap.wrap(text, letters, break_on_hyphens=False)[:_LINES])


def heights(rows: list[int], each: float, other: float) -> list[float]:
    """How tall panels of so many rows are, in inches; rows are closer where there would be no end."""
    total = sum(rows) * each + len(rows) * other
    return [(number * each + other) * min(1.0, _TALLEST / total) for number in rows]


def room(labels: Sequence[str], font: float) -> float:
    """Inches to the left of axes in which labels of this size are whole."""
    return 0.3 + max((text_width(line, font) for one in labels for line in one.split("\n")), default=0.0) / 72


def save_message(text: str, path: Path) -> None:
    """Write a picture that only says why there is nothing to see."""
    figure = new_figure(6.5, 1.5)
    figure.text(0.5, 0.5, text, ha="center", color=QUIET)
    save_figure(figure, path)


def mark(axes: Any, x: float, y: float, row: Row, **more: Any) -> None:
    """A row's mark: its role's shape, hollow for controls, in its verdict's colour."""
    colour = COLOURS[row.verdict]
    axes.plot(
        [x],
        [y],
        MARKERS[row.role],
        color=colour,
        markerfacecolor="white" if row.role == CONTROL else colour,
        markeredgewidth=1.6,
        markersize=6,
        zorder=3,
        **more,
    )


def legend(figure: Any, rows: Sequence[Row], *, margin: bool = False) -> None:
    """What shapes and colours mean, below everything; only what occurs."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Line2D([], [], linestyle="none", marker=MARKERS[role], color=INK, markersize=6, label=role)
        for role in ROLES
        if any(row.role == role for row in rows)
    ]
    for handle in handles:
        if handle.get_label() == CONTROL:
            handle.set_markerfacecolor("white")
    handles += [
        Line2D([], [], color=COLOURS[verdict], linewidth=3, label=verdict)
        for verdict in VERDICTS
        if any(row.verdict == verdict for row in rows)
    ]
    if margin:
        handles.append(Patch(color=BAND, label="margin of equivalence"))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
