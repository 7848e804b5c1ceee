"""Methods by sets as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from truthkit.figures import INK, QUIET, new_figure, save_figure
from truthkit.study.pages.contents import CONTROL, Row, Study
from truthkit.study.pages.drawing import heights, label, room, save_message
from truthkit.study.pages.heat_map import Grid, grid, heads, text
from truthkit.study.pages.marks import SIGN

_BETTER, _WORSE, _ABSENT = (76, 143, 220), (232, 145, 74), "#f3f3f0"
_COLUMN, _LINE, _HEAD, _FOOT = 1.5, 0.46, 0.55, 0.6  # inches
_LETTERS, _FONT = 34, 9


def save_map(study: Study, path: Path) -> None:
    """Write the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    found = grid(study)
    if found is None:
        save_message("Nothing was compared with greedy.", path)
        return
    left = room([label(name, _LETTERS) for name in found.names], _FONT)
    tall = heights([len(found.names)], _LINE, 0.0)[0]
    width, height = max(7.5, left + _COLUMN * len(found.sets) + 0.1), tall + _HEAD + _FOOT
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    box = left / width, _FOOT / height, (width - left - 0.1) / width, tall / height
    _draw(figure.add_axes(box), study, found)
    figure.text(
        0.5,
        0.1 / height,
        "Difference from greedy; blue is better, orange worse, pale what chance would give or is not judged.\n"
        f"{SIGN} p at most {study.alpha:g} after correction; below it the verdict; in italics controls; grey: not run.",
        ha="center",
        fontsize=8.5,
        color=QUIET,
    )
    save_figure(figure, path)


def _draw(axes: Any, study: Study, found: Grid) -> None:
    from matplotlib.patches import Rectangle

    for line, cells in enumerate(found.cells):
        for column, row in enumerate(cells):
            colour = _colour(study, found, column, row)
            axes.add_patch(Rectangle((column, line), 1, 1, facecolor=colour, edgecolor="white", linewidth=2))
            if row is None:
                continue
            shown, verdict = text(study, found.sets[column], row)
            weight, below = "bold" if shown.endswith(SIGN) else "normal", line + (0.72 if shown else 0.5)
            axes.text(column + 0.5, line + 0.36, shown, ha="center", va="center", fontsize=10, weight=weight, color=INK)
            axes.text(column + 0.5, below, verdict, ha="center", va="center", fontsize=7.5, color=INK)
    roles = [next(row.role for row in cells if row is not None) for cells in found.cells]
    names = [label(name, _LETTERS) for name in found.names]
    axes.set_yticks([i + 0.5 for i in range(len(roles))], names, parse_math=False, fontsize=_FONT)
    for name, role in zip(axes.get_yticklabels(), roles, strict=True):
        name.set_fontstyle("italic" if role == CONTROL else "normal")
    places = [i + 0.5 for i in range(len(found.sets))]
    axes.set_xticks(places, [label(name, 20) for name in heads(found)], parse_math=False, fontsize=_FONT)
    axes.set(xlim=(0, len(found.sets)), ylim=(len(roles), 0))
    axes.tick_params(length=0, labelcolor=INK, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)


def _colour(study: Study, found: Grid, column: int, row: Row | None) -> Any:
    if row is None:
        return _ABSENT
    strength = found.strength(study, column, row)
    full = _BETTER if strength > 0 else _WORSE
    share = 0.85 * abs(strength)
    return tuple((255 - share * (255 - part)) / 255 for part in full)
