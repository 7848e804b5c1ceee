"""Quality against cost as a picture: a panel for each set, laid out as the page's plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from truthkit.evaluation.report.plane import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, ends, place
from truthkit.evaluation.report.words import capital
from truthkit.figures import INK, QUIET, bare, new_figure, one_line, save_figure
from truthkit.study.pages.contents import EvalSet, Study
from truthkit.study.pages.drawing import legend, mark, save_message
from truthkit.study.pages.marks import COLOURS
from truthkit.study.pages.plane import X_TITLE, Plane, plane

_INCH = 80.0  # of the page's pixels
_HEAD, _FOOT, _SIDE = 0.45, 0.75, 0.35  # inches: above each panel, below all, and to the left


def save_plane(study: Study, path: Path) -> None:
    """Write the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    found = [(one, axes) for one in study.sets if (axes := plane(one)) is not None]
    if not found:
        save_message("No set has two rows whose cost is known.", path)
        return
    tall = HEIGHT / _INCH + _HEAD
    width, height = WIDTH / _INCH + _SIDE, len(found) * tall + _FOOT
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    for number, (one, axes) in enumerate(found):
        top = height - number * tall - _HEAD
        box = (
            (_SIDE + LEFT / _INCH) / width,
            (top - (HEIGHT - BOTTOM) / _INCH) / height,
            (WIDTH - LEFT - RIGHT) / _INCH / width,
            (HEIGHT - TOP - BOTTOM) / _INCH / height,
        )
        _panel(figure.add_axes(box), one, axes)
    legend(figure, [row for one, _ in found for row in one.rows])
    save_figure(figure, path)


def _panel(axes: Any, one: EvalSet, found: Plane) -> None:
    factor = one.scale.factor
    axes.set(
        xlim=(0, found.x_ticks[-1]),
        ylim=(factor * found.y_ticks[0], factor * found.y_ticks[-1]),
        xlabel=X_TITLE,
    )
    axes.set_xticks(found.x_ticks, [f"{tick:.3g}" for tick in found.x_ticks])
    axes.set_yticks([factor * tick for tick in found.y_ticks], [one.scale.tick(tick) for tick in found.y_ticks])
    axes.set_ylabel(one_line(capital(one.scale.title), 40), parse_math=False)
    axes.set_title(one_line(one.name, 80), loc="left", fontsize=12, fontweight="bold", parse_math=False)
    if found.chance is not None:
        axes.axhline(factor * found.chance, color=INK, linestyle=(0, (5, 4)), linewidth=1, alpha=0.6)
        line = axes.get_yaxis_transform()
        axes.text(1, factor * found.chance, "chance", transform=line, ha="right", va="bottom", fontsize=8, color=QUIET)
    points = [_pixels(found, row.cost, row.value.value) for row in found.rows]
    for row, label, at, where in zip(found.rows, found.labels, points, place(points, found.labels), strict=True):
        low, high = ends(row.value)
        axes.plot([row.cost] * 2, [factor * low, factor * high], color=COLOURS[row.verdict], linewidth=1.6, alpha=0.5)
        mark(axes, row.cost, factor * row.value.value, row, clip_on=False)
        if label:
            axes.annotate(
                one_line(label, 40),
                (row.cost, factor * row.value.value),
                ((where.x - at[0]) * 72 / _INCH, (at[1] - where.y) * 72 / _INCH),
                textcoords="offset points",
                ha={"start": "left", "middle": "center", "end": "right"}[where.anchor],
                fontsize=8.5,
                color=INK,
                arrowprops={"arrowstyle": "-", "color": QUIET, "linewidth": 0.6, "linestyle": ":"}
                if where.lead
                else None,
                parse_math=False,
            )
    bare(axes, "both")


def _pixels(found: Plane, cost: float, quality: float) -> tuple[float, float]:
    """Where a point is in the page's plot."""
    low, high = found.y_ticks[0], found.y_ticks[-1]
    x = LEFT + (WIDTH - LEFT - RIGHT) * cost / found.x_ticks[-1]
    return x, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (quality - low) / (high - low)
