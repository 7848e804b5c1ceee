"""The forest plot as a picture: a panel for each set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from truthkit.evaluation.report.words import counted
from truthkit.figures import INK, QUIET, bare, new_figure, one_line, save_figure
from truthkit.study.pages import words
from truthkit.study.pages.contents import CONTROL, EvalSet, Study
from truthkit.study.pages.drawing import BAND, heights, label, legend, mark, room, save_message
from truthkit.study.pages.forest import axis, directions
from truthkit.study.pages.marks import COLOURS, SIGN, word

_FONT, _LINE, _HEAD, _FOOT, _RIGHT = 8.5, 0.32, 0.45, 0.72, 3.0  # points, and inches


def save_forest(study: Study, path: Path) -> None:
    """Write the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    sets = [one for one in study.sets if one.compared]
    if not sets:
        save_message("Nothing was compared with greedy.", path)
        return
    sizes = heights([len(one.compared) for one in sets], _LINE, _HEAD + _FOOT)
    left = room([label(row.label) for one in sets for row in one.compared], _FONT)
    width, height = left + 5.2 + _RIGHT, sum(sizes) + 0.6
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    top = height
    for one, size in zip(sets, sizes, strict=True):
        box = left / width, (top - size + _FOOT) / height, 5.2 / width, (size - _HEAD - _FOOT) / height
        _panel(figure.add_axes(box), study, one)
        top -= size
    legend(figure, [row for one in sets for row in one.compared], margin=True)
    save_figure(figure, path)


def _panel(axes: Any, study: Study, one: EvalSet) -> None:
    factor, at, rows = one.scale.factor, axis(one), one.compared
    if math.isfinite(one.margin):
        axes.axvspan(-factor * one.margin, factor * one.margin, color=BAND, zorder=0)
    axes.axvline(0.0, color=QUIET, linewidth=1.2, zorder=1)
    for place, row in enumerate(rows):
        assert row.greedy is not None
        value, interval = row.greedy.difference
        if interval is not None:
            ends = [factor * interval.low, factor * interval.high]
            axes.plot(ends, [place, place], color=COLOURS[row.verdict], linewidth=2.2, zorder=2, solid_capstyle="butt")
        if math.isfinite(value):
            mark(axes, factor * value, place, row)
        shown = f"{one.scale.difference(value)}{SIGN if study.significant(row.greedy) else ''}"
        _beside(axes, place, shown, words.span(one.scale, row.greedy.difference), word(row))
    names = [label(row.label) for row in rows]
    axes.set_yticks(range(len(rows)), names, parse_math=False, fontsize=_FONT)
    for text, row in zip(axes.get_yticklabels(), rows, strict=True):
        text.set_fontstyle("italic" if row.role == CONTROL else "normal")
    axes.set(xlim=(factor * at[0], factor * at[-1]), ylim=(len(rows) - 0.4, -0.6))
    axes.set_xticks([factor * tick for tick in at], [words.tick(one.scale, tick) for tick in at], fontsize=_FONT)
    head = f"{one_line(one.name, 70)} · {counted(one.test, 'item')}"
    axes.set_title(head, loc="left", fontsize=12, fontweight="bold", parse_math=False)
    of = f"{words.capital_unit(one.scale)} of {one.scale.metric.title} from greedy, {study.interval}s"
    about = f"{one_line(of, 90)}. {directions(one)}\n{SIGN} more than chance would give, after correction."
    axes.set_xlabel(about, parse_math=False, fontsize=9)
    bare(axes, "x")
    axes.tick_params(axis="x", labelcolor=QUIET)


def _beside(axes: Any, place: int, value: str, span: str, verdict: str) -> None:
    """Figures and verdict to the right of a line."""
    for text, offset, align, colour in (
        (value, 44, "right", INK),
        (span, 126, "right", QUIET),
        (verdict, 136, "left", INK),
    ):
        axes.annotate(
            text,
            (1, place),
            (offset, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha=align,
            va="center",
            fontsize=_FONT,
            color=colour,
            annotation_clip=False,
        )
