"""Tables of the page, each with a note on how to read it."""

from __future__ import annotations

from collections.abc import Sequence

from truthkit.evaluation.benchmark import spaced
from truthkit.evaluation.report.charts import bar, colour, lift, nice, top
from truthkit.evaluation.report.contents import Estimate, Section
from truthkit.evaluation.report.words import NOTHING, Scale, capital, counted, p_value, seconds
from truthkit.markup import Markup, element, together

_SHADE = 0.7  # of the strongest colour, for the largest difference of a table


def metrics(section: Section) -> tuple[Markup, str]:
    """Runs by metrics, and the cost."""
    names = section.metrics
    scales = {name: section.scale(name) for name in names}
    ends = {
        name: top([entry.metrics[name] for entry in section.entries if name in entry.metrics], scale)
        for name, scale in scales.items()
    }
    alike = len({scale.unit for scale in scales.values()}) == 1
    costs = any(entry.cost for entry in section.entries)
    heads = [
        element("th", (scale.metric.title if alike else scale.title) + f" {scale.metric.arrow}".rstrip(), scope="col")
        for scale in scales.values()
    ]
    heads += [element("th", "time per item", scope="col")] if costs else []
    rows = []
    for number, entry in enumerate(section.entries):
        cells = [
            _estimate(scale, entry.metrics.get(name), ends[name], colour(section, number))
            for name, scale in scales.items()
        ]
        if costs:
            cells.append(_cost(entry.cost))
        rows.append(element("tr", _row_head(section, number), *cells))
    levels = {name: section.chance(name) for name in names}
    rows += _chance_row([(scales[name], levels[name]) for name in names], more=costs)
    said = [_in_unit(section.scale(names[0]))] if alike else []
    note = "; ".join(filter(None, [*said, _arrows(list(scales.values()))]))
    return _table(heads, rows), f"{capital(note)}." if note else ""


def tests(section: Section) -> tuple[Markup, str]:
    """Every tested run's difference from its baseline, and the answers that flipped."""
    tested = [(number, entry, entry.test) for number, entry in enumerate(section.entries) if entry.test]
    reach = nice(max(max(abs(test.difference.low), abs(test.difference.high)) for *_, test in tested))
    several = len({test.against for *_, test in tested}) > 1
    flips = any(test.comparison.answers for *_, test in tested)
    names = ["against"] * several + [f"difference in {section.scale().metric.title}", "", "p"]
    names += ["p, Holm"] * (len(tested) > 1) + ["newly right", "newly wrong", "p, McNemar"] * flips
    heads = [element("th", name, scope="col", class_="text" if name == "against" else None) for name in names]
    rows = []
    for number, _, test in tested:
        change, answers = test.difference, test.comparison.answers
        shown = section.scale().difference
        cells = [element("td", test.against, class_="text")] if several else []
        cells += [
            _value(shown(change.value), f"{shown(change.low)} to {shown(change.high)}"),
            element("td", lift(change, reach, colour(section, number))),
            _number(p_value(change.p)),
        ]
        if len(tested) > 1:
            cells.append(_number(p_value(test.holm), strong=test.holm < 0.05))
        if flips and answers:
            cells += [_number(str(answers.gained)), _number(str(answers.lost)), _number(p_value(answers.p))]
        elif flips:
            cells += [_number(NOTHING)] * 3
        rows.append(element("tr", _row_head(section, number), *cells))
    unit = section.scale().difference_unit
    against = "" if several else f" from {tested[0][2].against}"
    note = (
        f"Difference{against} in {unit} over the items that both have, with its 95 % interval and two-sided p from a "
        f"paired bootstrap; the axis reaches from {shown(-reach)} to {shown(reach)}."
    )
    if len(tested) > 1:
        note += f" Holm's p allows for there being {counted(len(tested), 'test')}; below 0.05 it is in bold."
    if flips:
        note += " McNemar's exact test compares the answers that changed between right and wrong."
    return _table(heads, rows), note


def categories(section: Section) -> tuple[Markup, str]:
    """Runs by categories, shaded by the difference from their baseline."""
    names, scale = section.categories, section.scale()
    differences = {
        (number, name): entry.categories[name].value - other.categories[name].value
        for number, entry in enumerate(section.entries)
        if (other := section.reference(entry))
        for name in names
        if name in entry.categories and name in other.categories
    }
    largest = max(map(abs, differences.values()), default=0.0) or 1.0
    heads = [element("th", spaced(name), scope="col") for name in names]
    rows = []
    for number, entry in enumerate(section.entries):
        cells = []
        for name in names:
            change = differences.get((number, name), 0.0) * scale.metric.better
            style = f"--shade:{100 * _SHADE * abs(change) / largest:.0f}%"
            side = "better" if change > 0 else "worse" if change < 0 else None
            cells.append(_estimate(scale, entry.categories.get(name), class_=side, style=style if side else None))
        rows.append(element("tr", _row_head(section, number), *cells))
    rows += _chance_row([(scale, section.chance_in(name)) for name in names])
    shaded = "shaded blue where better than the run's baseline, orange where worse" if scale.metric.better else ""
    note = "; ".join(filter(None, [_in_unit(scale), shaded]))
    return _table(heads, rows), f"{capital(note)}." if note else ""


def _in_unit(scale: Scale) -> str:
    return {"%": "in percent", "": ""}.get(scale.unit, f"in {scale.unit}")


def _arrows(scales: Sequence[Scale]) -> str:
    signs = {scale.metric.better for scale in scales}
    return ", ".join(text for sign, text in ((1, "↑ higher is better"), (-1, "↓ lower is better")) if sign in signs)


def _table(heads: list[Markup], rows: list[Markup]) -> Markup:
    first = element("th", "run", scope="col")
    return element("table", element("thead", element("tr", first, *heads)), element("tbody", *rows))


def _row_head(section: Section, number: int) -> Markup:
    key = element("span", class_=f"key {colour(section, number)}", aria_hidden="true")
    return element("th", key, section.entries[number].label, scope="row")


def _chance_row(levels: Sequence[tuple[Scale, float | None]], *, more: bool = False) -> list[Markup]:
    """What guessing scores, where that is known of a column; `more` for an empty one behind."""
    if all(level is None for _, level in levels):
        return []
    cells = [_number(NOTHING if level is None else scale.value(level)) for scale, level in levels]
    cells += [_number(NOTHING)] if more else []
    return [element("tr", element("th", "chance", scope="row"), *cells, class_="guess")]


def _estimate(
    scale: Scale,
    estimate: Estimate | None,
    end: float | None = None,
    colour_class: str = "",
    **attributes: str | None,
) -> Markup:
    if estimate is None:
        return _number(NOTHING)
    chart = bar(estimate, end, colour_class) if end else None
    return _value(
        scale.value(estimate.value),
        scale.interval(estimate.interval) if estimate.interval else None,
        chart,
        **attributes,
    )


def _cost(cost: Estimate | None) -> Markup:
    if cost is None:
        return _number(NOTHING)
    return _value(
        seconds(cost.value), f"{seconds(cost.interval.low)} to {seconds(cost.interval.high)}" if cost.interval else None
    )


def _value(value: str, interval: str | None, chart: Markup | None = None, **attributes: str | None) -> Markup:
    small = element("small", interval) if interval else None
    return element("td", together(element("b", value), small, chart), **attributes)


def _number(text: str, *, strong: bool = False) -> Markup:
    return element("td", element("strong", text) if strong else text, class_="number")
