"""Tables of the page, each with a note on how to read it."""

from __future__ import annotations

from truthkit.evaluation.report.charts import bar, colour, lift, nice, top
from truthkit.evaluation.report.contents import Estimate, Section
from truthkit.evaluation.report.words import NOTHING, counted, direction, metric_title, p_value, seconds
from truthkit.markup import Markup, element, together

_ARROWS = {1: " ↑", -1: " ↓", 0: ""}
_SHADE = 0.7  # of the strongest colour, for the largest difference of a table


def metrics(section: Section) -> tuple[Markup, str]:
    """Runs by metrics, and the cost."""
    names = section.metrics
    shares = section.scale.shares
    ends = {
        name: top([entry.metrics[name] for entry in section.entries if name in entry.metrics], shares=shares)
        for name in names
    }
    costs = any(entry.cost for entry in section.entries)
    heads = [element("th", metric_title(name) + _ARROWS[direction(name)], scope="col") for name in names]
    heads += [element("th", "seconds per item", scope="col")] if costs else []
    rows = []
    for number, entry in enumerate(section.entries):
        cells = [_estimate(section, entry.metrics.get(name), ends[name], colour(section, number)) for name in names]
        if costs:
            cells.append(_cost(entry.cost))
        rows.append(element("tr", _row_head(section, number), *cells))
    note = (
        f"In percent{_arrows(section)}." if section.scale.shares else f"{_arrows(section).lstrip('; ').capitalize()}."
    )
    return _table(heads, rows), note


def tests(section: Section) -> tuple[Markup, str]:
    """Every tested run's difference from its baseline, and the answers that flipped."""
    tested = [(number, entry, entry.test) for number, entry in enumerate(section.entries) if entry.test]
    reach = nice(max(max(abs(test.difference.low), abs(test.difference.high)) for *_, test in tested))
    several = len({test.against for *_, test in tested}) > 1
    flips = any(test.comparison.answers for *_, test in tested)
    names = ["against"] * several + [f"difference in {metric_title(section.headline)}", "", "p"]
    names += ["p, Holm"] * (len(tested) > 1) + ["newly right", "newly wrong", "p, McNemar"] * flips
    heads = [element("th", name, scope="col", class_="text" if name == "against" else None) for name in names]
    rows = []
    for number, _, test in tested:
        change, answers = test.difference, test.comparison.answers
        shown = section.scale.difference
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
    unit = "percentage points" if section.scale.shares else "the metric's own unit"
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
    names = section.categories
    differences = {
        (number, name): entry.categories[name].value - other.categories[name].value
        for number, entry in enumerate(section.entries)
        if (other := section.reference(entry))
        for name in names
        if name in entry.categories and name in other.categories
    }
    largest = max(map(abs, differences.values()), default=0.0) or 1.0
    heads = [element("th", metric_title(name), scope="col") for name in names]
    rows = []
    for number, entry in enumerate(section.entries):
        cells = []
        for name in names:
            change = differences.get((number, name), 0.0) * (direction(section.headline) or 1)
            style = f"--shade:{100 * _SHADE * abs(change) / largest:.0f}%"
            side = "better" if change > 0 else "worse" if change < 0 else None
            cells.append(_estimate(section, entry.categories.get(name), class_=side, style=style if side else None))
        rows.append(element("tr", _row_head(section, number), *cells))
    unit = "In percent; shaded" if section.scale.shares else "Shaded"
    return _table(heads, rows), f"{unit} blue where better than the run's baseline, orange where worse."


def _arrows(section: Section) -> str:
    signs = {direction(name) for name in section.metrics}
    parts = [text for sign, text in ((1, "↑ higher is better"), (-1, "↓ lower is better")) if sign in signs]
    return f"; {', '.join(parts)}" if parts else ""


def _table(heads: list[Markup], rows: list[Markup]) -> Markup:
    first = element("th", "run", scope="col")
    return element("table", element("thead", element("tr", first, *heads)), element("tbody", *rows))


def _row_head(section: Section, number: int) -> Markup:
    key = element("span", class_=f"key {colour(section, number)}", aria_hidden="true")
    return element("th", key, section.entries[number].label, scope="row")


def _estimate(
    section: Section,
    estimate: Estimate | None,
    end: float | None = None,
    colour_class: str = "",
    **attributes: str | None,
) -> Markup:
    if estimate is None:
        return _number(NOTHING)
    chart = bar(estimate, end, colour_class) if end else None
    return _value(
        section.scale.value(estimate.value),
        section.scale.interval(estimate.interval) if estimate.interval else None,
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
