"""The charts of a report as one picture: the headline metric, and quality against cost, a row for each section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from truthkit.evaluation.report.charts import top
from truthkit.evaluation.report.contents import Estimate, Report, Section
from truthkit.evaluation.report.plane import plane
from truthkit.evaluation.report.words import capital
from truthkit.figures import INK, bare, new_figure, one_line, save_figure

_COLOURS = ("#8a8f99", "#2f6fd0", "#e07b1f", "#1d9a77", "#b5479e", "#8467d7", "#b98a00", "#3aa0c9", "#c9504b")
_LONGEST = 36  # characters of a label
_FEWEST = 5  # bars that a row has room for where quality stands against cost beside them


def save_picture(report: Report, path: Path) -> None:
    """Write the charts.

    Raises:
        ArgumentError: the ending is not that of a picture.
        MissingExtraError: matplotlib is not installed.
    """
    heights = [1.5 + 0.36 * _places(section) for section in report.sections]
    figure = new_figure(11, sum(heights))
    figure.get_layout_engine().set(h_pad=0.15, w_pad=0.15)
    rows = figure.subplots(len(heights), 2, squeeze=False, height_ratios=heights)
    for (bars, cost), section in zip(rows, report.sections, strict=True):
        _bars(bars, section)
        _plane(cost, section)
    save_figure(figure, path)


def _places(section: Section) -> int:
    """How many bars a row has room for."""
    return max(len(section.entries), 2 if plane(section) is None else _FEWEST)


def _bars(axes: Any, section: Section) -> None:
    shown = [
        (i, e, e.metrics[section.headline]) for i, e in enumerate(section.entries) if section.headline in e.metrics
    ]
    factor = section.scale().factor
    places = list(range(len(shown)))
    values = [factor * estimate.value for *_, estimate in shown]
    spans = [_reach(estimate, factor) for *_, estimate in shown]
    colours = [_COLOURS[_colour(i)] for i, *_ in shown]
    axes.barh(places, values, color=colours, height=0.62)
    axes.errorbar(values, places, xerr=list(zip(*spans, strict=True)), fmt="none", ecolor=INK, elinewidth=1, capsize=3)
    axes.set_yticks(places, [_plain(entry.label) for _, entry, _ in shown], parse_math=False)
    axes.set_ylim(_places(section) - 0.4, -0.6)
    for place, (_, _, estimate) in zip(places, shown, strict=True):
        axes.annotate(
            section.scale().value(estimate.value),
            (1, place),
            (8, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
        )
    end, chance = top([estimate for *_, estimate in shown], section.scale()), section.chance()
    guess = ""
    if chance is not None and chance <= end:
        axes.axvline(factor * chance, color=INK, linestyle=":", linewidth=1)
        guess = f", dotted: chance, {section.scale().quantity(chance)}"
    axes.set_xlim(0, factor * end)
    arrow = {1: ", higher is better", -1: ", lower is better", 0: ""}[section.scale().metric.better]
    axes.set_title(_plain(section.title), loc="left", fontsize=13, fontweight="bold", parse_math=False)
    axes.set_xlabel(_quality(section) + arrow + guess, parse_math=False)
    bare(axes, "x")
    axes.tick_params(axis="y", length=0)


def _plane(axes: Any, section: Section) -> None:
    found = plane(section)
    if found is None:
        axes.set_axis_off()
        return
    factor = section.scale().factor
    for number, cost, quality in found.points:
        colour = _COLOURS[_colour(number)]
        x, y = cost.value, factor * quality.value
        errors = [[[low], [high]] for low, high in (_reach(cost, 1), _reach(quality, factor))]
        axes.errorbar(x, y, xerr=errors[0], yerr=errors[1], color=colour, elinewidth=1.5, alpha=0.5)
        axes.plot(x, y, "o", color=colour, markersize=7, markeredgecolor="white", zorder=3)
    axes.set_xticks(found.x_ticks, [f"{tick:.3g}" for tick in found.x_ticks])
    axes.set_yticks([factor * tick for tick in found.y_ticks])
    axes.set(xlim=(0, found.x_ticks[-1]), ylim=(factor * found.y_ticks[0], factor * found.y_ticks[-1]))
    axes.set_xlabel("seconds per item, colours as on the left")
    axes.set_ylabel(_quality(section), parse_math=False)
    bare(axes, "both")


def _reach(estimate: Estimate, factor: float) -> tuple[float, float]:
    """How far the interval goes below and above the value."""
    if estimate.interval is None:
        return 0.0, 0.0
    low, high = estimate.interval
    return max(0.0, factor * (estimate.value - low)), max(0.0, factor * (high - estimate.value))


def _quality(section: Section) -> str:
    return _plain(capital(section.scale().title))


def _colour(number: int) -> int:
    return (number - 1) % (len(_COLOURS) - 1) + 1 if number else 0


def _plain(text: str) -> str:
    return one_line(text, _LONGEST)
