"""A report as one page: no script, no network, light and dark, on paper and on a telephone."""

from __future__ import annotations

from truthkit.evaluation.report import curves as drawn
from truthkit.evaluation.report import provenance, tables
from truthkit.evaluation.report.cards import cards
from truthkit.evaluation.report.charts import Row, bars, top
from truthkit.evaluation.report.contents import Report, Section
from truthkit.evaluation.report.document import box, contents, document, figure, notice, scrolling
from truthkit.evaluation.report.items import items, rules
from truthkit.evaluation.report.plane import plane, svg
from truthkit.evaluation.report.summary import about, findings, title
from truthkit.evaluation.report.words import YES, capital
from truthkit.markup import Markup, element, together


def page(report: Report) -> str:
    """The whole document."""
    return document(
        title(report),
        element("header", _top(report)),
        element("main", *[_section(number, section) for number, section in enumerate(report.sections)]),
        element("footer", provenance.reading(report), provenance.provenance(report)),
        style=rules(report),
    )


def _top(report: Report) -> Markup:
    return together(
        element("p", "truthkit report", class_="eyebrow"),
        element("h1", title(report)),
        element("p", about(report), class_="about"),
        contents([section.title for section in report.sections]),
        notice(report.notes, "Folders"),
    )


def _section(number: int, section: Section) -> Markup:
    axes = plane(section)
    return element(
        "section",
        element("h2", section.title, id=f"h{number}"),
        notice(section.caveats, "Before you compare"),
        *[element("p", sentence, class_="finding") for sentence in findings(section)],
        _headline(section),
        box("Every metric, with 95 % intervals", tables.metrics(section)),
        box("Against the baseline, item by item", tables.tests(section)) if section.tested else None,
        figure(
            f"{capital(section.scale().metric.title)} against cost",
            "Mean seconds per item, as the run measured them. Whiskers are 95 % intervals.",
            scrolling("Plot", svg(section, axes)),
        )
        if axes
        else None,
        _curves(section),
        _yes(section),
        box(f"{capital(section.scale().metric.title)} by category", tables.categories(section))
        if section.categories
        else None,
        cards(section),
        items(section, number),
        id=f"s{number}",
        aria_labelledby=f"h{number}",
    )


def _headline(section: Section) -> Markup:
    name = section.headline
    rows: list[Row] = []
    for number, entry in enumerate(section.entries):
        if name in entry.metrics:
            other = section.reference(entry)
            base = other.metrics.get(name) if other else None
            rows.append((number, entry.metrics[name], base.value if base else None))
    scale = section.scale()
    end = top([estimate for _, estimate, _ in rows], scale)
    better = {1: "Higher is better. ", -1: "Lower is better. ", 0: ""}[scale.metric.better]
    chance = section.chance()
    marks = [("dashed", "the run's baseline")] if section.tested else []
    marks += [] if chance is None or chance > end else [("dotted", f"chance, {scale.quantity(chance)}")]
    lines = "".join(f" {capital(how)} lines are at {what}." for how, what in marks)
    note = f"{better}Whiskers are 95 % intervals.{lines}"
    return figure(capital(scale.metric.title), note, bars(section, rows, scale, end, chance=chance))


def _curves(section: Section) -> Markup | None:
    if not (found := drawn.curves(section)):
        return None
    first = found[0][1]
    return figure(first.title, first.note, scrolling("Curves", drawn.svg(section, found)))


def _yes(section: Section) -> Markup | None:
    if section.yes_labels is None:
        return None
    truth = section.yes_labels.value
    rows: list[Row] = [(i, entry.yes, truth) for i, entry in enumerate(section.entries) if entry.yes is not None]
    note = (
        f"Share of answers read as yes. Dashed lines are at the share of right answers that are: {100 * truth:.1f} %."
    )
    return figure("How often it says yes", note, bars(section, rows, YES, 1.0))
