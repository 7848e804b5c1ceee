"""A study as one page: what it found in words, charts, every figure, and where they come from."""

from __future__ import annotations

from importlib.resources import files

from truthkit.evaluation.report.charts import bar, top
from truthkit.evaluation.report.document import box, contents, document, figure, listing, notice, scrolling
from truthkit.evaluation.report.words import capital, counted, listed
from truthkit.markup import Markup, element, together
from truthkit.study.pages import forest, heat_map, plane, provenance, summary, words
from truthkit.study.pages.contents import METHOD, Choice, EvalSet, Row, Study
from truthkit.study.pages.marks import SIGN, breakable, key, legend, verdict_class
from truthkit.study.pages.table import GROUPS, Cell, cells, columns, note


def page(study: Study) -> str:
    """The whole document."""
    style = files("truthkit.study.pages").joinpath("study.css").read_text(encoding="utf-8")
    found = heat_map.grid(study)
    sections = [("Methods by test sets", _map(study, found))] if found else []
    sections += [(one.name, _set(study, one)) for one in study.sets]
    return document(
        study.name,
        _top(study, [name for name, _ in sections]),
        element("main", *[_section(number, name, body) for number, (name, body) in enumerate(sections)]),
        _bottom(study),
        style=style,
    )


def _section(number: int, name: str, body: Markup) -> Markup:
    return element("section", element("h2", name, id=f"h{number}"), body, id=f"s{number}", aria_labelledby=f"h{number}")


def _top(study: Study, sections: list[str]) -> Markup:
    return element(
        "header",
        element("p", "truthkit study", class_="eyebrow"),
        element("h1", study.name),
        element("p", summary.about(study), class_="about"),
        element("p", study.note, class_="about") if study.note else None,
        contents(sections),
        notice(summary.caveats(study), "Before you read on"),
        element("p", summary.overall(study), class_="finding found"),
        _found(summary.groups(study)),
    )


def _found(groups: list[summary.Group]) -> Markup | None:
    if not groups:
        return None
    parts = []
    for group in groups:
        lines = [element("li", breakable(line)) for line in group.lines]
        parts.append(element("div", element("h3", group.title), element("ul", *lines)))
    return element("div", *parts, class_="found")


def _map(study: Study, found: heat_map.Grid) -> Markup:
    return box("Differences from greedy", heat_map.table(study, found))


def _set(study: Study, one: EvalSet) -> Markup:
    found = plane.plane(one)
    return together(
        element("p", f"{words.about(one)} {capital(summary.looks(study, one))}.", class_="of"),
        _found(summary.groups(study, one)) if len(study.sets) > 1 else None,
        _forest(study, one) if one.compared else None,
        box("Every row", (_table(study, one), note(study, one))),
        figure(
            f"{capital(one.scale.metric.title)} against cost",
            plane.note(one, found),
            legend(),
            scrolling("Plot", plane.svg(one, found)),
        )
        if found
        else None,
        _chosen(study, one),
    )


def _forest(study: Study, one: EvalSet) -> Markup:
    least = words.detectable(one, [row.greedy for row in one.of(METHOD) if row.greedy])
    parts = [
        f"{words.capital_unit(one.scale)} of {one.scale.metric.title}, with {study.interval}s that are not corrected; "
        "verdicts are.",
        forest.directions(one),
        f"{SIGN} marks differences from greedy that are more than chance would give, after correction.",
        f"The band is the margin of equivalence, {words.margin(one)}.",
        f"{capital(least)}." if least else "",
    ]
    return figure("Difference from greedy", " ".join(filter(None, parts)), legend(), forest.forest(study, one))


def _table(study: Study, one: EvalSet) -> Markup:
    heads = [element("th", column.head, scope="col") for column in columns(study, one)]
    end = top([row.value for row in one.rows], one.scale)
    bodies = []
    for role, name in GROUPS.items():
        if not (rows := one.of(role)):
            continue
        group = element("tr", element("th", name, colspan=len(heads) + 1, scope="rowgroup"), class_="group")
        bodies.append(element("tbody", group, *[_row(study, one, row, end) for row in rows]))
    first = element("th", "decoder", scope="col")
    return element("table", element("thead", element("tr", first, *heads)), *bodies, class_="every")


def _row(study: Study, one: EvalSet, row: Row, end: float) -> Markup:
    verdict, value, *others = cells(study, one, row)
    chance = one.chance if words.chance(one) else None
    chart = bar(row.value, end, verdict_class(row.verdict), chance=chance)
    of = f"control of {listed(list(row.control_of))}" if row.control_of else words.method(row)
    name = key(row.role, row.verdict), breakable(row.label), element("small", of) if of else None
    head = element("th", *name, scope="row")
    return element("tr", head, _cell(verdict), _cell(value, chart), *map(_cell, others), title=row.said or None)


def _cell(cell: Cell, chart: Markup | None = None) -> Markup:
    small = [element("small", text) for text in (cell.span, cell.note) if text]
    plain = not small and chart is None
    shown = element("strong" if plain else "b", cell.text) if cell.strong or not plain else cell.text
    return element("td", together(shown, *small, chart), class_="number" if plain else None)


def _chosen(study: Study, one: EvalSet) -> Markup | None:
    rows = [row for row in one.rows if row.chosen_from]
    if not rows:
        return None
    lines = []
    for row in rows:
        tried = [
            element(
                "tr",
                element("th", _tried(row, choice.decoder), scope="row"),
                *_figures(one, choice),
            )
            for choice in row.chosen_from
        ]
        heads = [element("th", text, scope="col") for text in ("decoder", one.scale.title, "items")]
        made = element("table", element("thead", element("tr", *heads)), element("tbody", *tried), class_="tried")
        name = f"{row.label}, chosen from {counted(len(row.chosen_from), 'setting')}"
        lines.append(element("details", element("summary", name), scrolling(name, made)))
    return figure(
        "What was chosen on development items",
        f"Each method's options, tried on {counted(one.development, 'development item')}, no test item among them.",
        *lines,
    )


def _tried(row: Row, decoder: str) -> Markup | str:
    return element("b", decoder) if decoder == row.settings.get("decoder") else decoder


def _figures(one: EvalSet, choice: Choice) -> list[Markup]:
    return [element("td", text, class_="number") for text in (one.scale.value(choice.value), f"{choice.items:,}")]


def _bottom(study: Study) -> Markup:
    said, command = provenance.repeat(study)
    blocks: list[str | None] = []
    for one in study.sets:
        rows = [element("details", element("summary", row.label), listing(provenance.of_row(row))) for row in one.rows]
        blocks += [element("h3", one.name), listing(provenance.of_set(one)), *rows]
    return element(
        "footer",
        element("h2", "How to read this"),
        *[element("p", text) for text in provenance.how_to_read(study)],
        element("h2", "How to repeat it"),
        element("p", said),
        element("pre", command, class_="command"),
        element("ul", *[element("li", text) for text in provenance.files()]),
        element("h2", "What was read, and when"),
        _looks(study),
        element("h2", "Where it comes from"),
        listing(provenance.origin(study)),
        *blocks,
    )


def _looks(study: Study) -> Markup:
    if not study.looks:
        return element("p", "No reading of the items is recorded.")
    heads = [element("th", text, scope="col", class_="text") for text in ("when", "set", "items", "rows")]
    names = {one.id: one.name for one in study.sets}
    lines = [
        element(
            "tr",
            element("th", words.when(look.when), scope="row"),
            *[
                element("td", text, class_="text")
                for text in (names.get(look.set, look.set), look.part, ", ".join(look.rows))
            ],
        )
        for look in study.looks
    ]
    return scrolling("Looks", element("table", element("thead", element("tr", *heads)), element("tbody", *lines)))
