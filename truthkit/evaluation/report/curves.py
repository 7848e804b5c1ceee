"""The curves of a section's runs on one pair of axes, as SVG: risk against coverage, for one."""

from __future__ import annotations

from contextlib import suppress

from truthkit.evaluation.benchmark import Curve
from truthkit.evaluation.report.charts import colour, nice
from truthkit.evaluation.report.contents import Section
from truthkit.evaluation.report.letters import fitted
from truthkit.markup import Markup, element, together

_WIDTH, _HEIGHT = 760, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 250, 30, 46
_SIZE = 12.5  # of its font, as in the style sheet


def curves(section: Section) -> list[tuple[int, Curve]]:
    """The curve of each run that has one, by the number of its entry; none where the benchmark draws none."""
    found: list[tuple[int, Curve]] = []
    for number, entry in enumerate(section.entries if section.benchmark.curve else ()):
        with suppress(KeyError, TypeError, ValueError):  # a summary of other hands
            if section.benchmark.curve and (curve := section.benchmark.curve(entry.run.summary["config"])):
                found.append((number, curve))
    return found


def svg(section: Section, found: list[tuple[int, Curve]]) -> Markup:
    """Lines from the left to the right end, both axes in percent, with the labels beside them in their order."""
    end = nice(max((y for _, curve in found for _, y in curve.points), default=1.0))
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return round(_LEFT + (right - _LEFT) * x, 1), round(bottom - (bottom - _TOP) * y / end, 1)

    grid = []
    for step in range(5):
        (across, _), (_, up) = place(step / 4, 0.0), place(0.0, end * step / 4)
        grid += [
            element("line", x1=_LEFT, x2=right, y1=up, y2=up, class_="grid"),
            element("text", f"{100 * end * step / 4:.3g}", x=_LEFT - 8, y=up + 4, text_anchor="end", class_="tick"),
            element("text", f"{25 * step}", x=across, y=bottom + 18, text_anchor="middle", class_="tick"),
        ]
    first = found[0][1]
    middle = (_LEFT + right) / 2
    grid.append(element("text", f"{first.x}, %", x=middle, y=_HEIGHT - 8, text_anchor="middle", class_="axis-title"))
    grid.append(element("text", f"{first.y}, %", x=0, y=12, class_="axis-title"))
    lines = []
    for row, (number, curve) in enumerate(found):
        label, at = section.entries[number].label, _TOP + 12 + 18 * row
        points = " ".join(f"{x},{y}" for x, y in (place(*point) for point in curve.points))
        short = fitted(label, _RIGHT - 40, _SIZE)
        lines.append(
            element(
                "g",
                element("title", label),
                element("polyline", points=points, class_="curve"),
                element("line", x1=right + 16, x2=right + 34, y1=at - 4, y2=at - 4, class_="curve"),
                element("text", short, x=right + 40, y=at, class_="label"),
                class_=colour(section, number),
            )
        )
    name = f"{first.y} against {first.x}; the numbers are in each run's summary"
    return element(
        "svg", together(*grid, *lines), viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=name, class_="plot"
    )
