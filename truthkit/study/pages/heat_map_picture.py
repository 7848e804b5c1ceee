"""Methods by sets as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from truthkit.figures import INK, QUIET, new_figure, save_figure
from truthkit.study.pages.contents import CONTROL, Row, Study
from truthkit.study.pages.drawing import heights, label
from truthkit.study.pages.heat_map import SIGN, Grid, grid, heads, text

_BETTER, _WORSE, _ABSENT = (76, 143, 220), (232, 145, 74), "#f3f3f0"
_COLUMN, _LINE, _NAMES = 1.5, 0.46, 2.9  # inches


def save_map(study: Study, path: Path) -> None:
    """Write the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    found = grid(study)
    columns, lines = (len(found.sets), len(found.names)) if found else (1, 1)
    figure = new_figure(max(6.5, _NAMES + _COLUMN * columns), heights([lines], _LINE, 1.7)[0])
    axes = figure.subplots()
    axes.set_axis_off()
    if found is None:
        axes.text(0.5, 0.5, "Nothing was compared with greedy.", ha="center")
    else:
        _draw(axes, study, found)
        figure.supxlabel(
            f"Difference from greedy; blue is better, orange worse. {SIGN} p below {study.alpha:g} after correction; "
            "below it the verdict.\nIn italics controls.",
            fontsize=8.5,
            color=QUIET,
        )
    save_figure(figure, path)


def _draw(axes: Any, study: Study, found: Grid) -> None:
    from matplotlib.patches import Rectangle

    axes.set_axis_on()
    for line, cells in enumerate(found.cells):
        for column, row in enumerate(cells):
            axes.add_patch(
                Rectangle((column, line), 1, 1, facecolor=_colour(found, column, row), edgecolor="white", linewidth=2)
            )
            shown, verdict = text(study, found.sets[column], row)
            weight = "bold" if shown.endswith(SIGN) else "normal"
            axes.text(column + 0.5, line + 0.36, shown, ha="center", va="center", fontsize=10, weight=weight, color=INK)
            axes.text(column + 0.5, line + 0.72, verdict, ha="center", va="center", fontsize=7.5, color=INK)
    roles = [next(row.role for row in cells if row is not None) for cells in found.cells]
    axes.set_yticks(
        [i + 0.5 for i in range(len(roles))], [label(n, 34) for n in found.names], parse_math=False, fontsize=9
    )
    for name, role in zip(axes.get_yticklabels(), roles, strict=True):
        name.set_fontstyle("italic" if role == CONTROL else "normal")
    places = [i + 0.5 for i in range(len(found.sets))]
    axes.set_xticks(places, [label(name, 20) for name in heads(found)], parse_math=False, fontsize=9)
    axes.set(xlim=(0, len(found.sets)), ylim=(len(roles), 0))
    axes.tick_params(length=0, labelcolor=INK, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)


def _colour(found: Grid, column: int, row: Row | None) -> Any:
    if row is None:
        return _ABSENT
    strength = found.strength(column, row)
    full = _BETTER if strength > 0 else _WORSE
    share = 0.85 * abs(strength)
    return tuple((255 - share * (255 - part)) / 255 for part in full)
