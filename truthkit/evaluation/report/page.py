"""A report as one page: no script, no network, light and dark, on paper and on a telephone."""

from __future__ import annotations

from importlib.resources import files

import truthkit
from truthkit.evaluation.report import curves as drawn
from truthkit.evaluation.report import provenance, tables
from truthkit.evaluation.report.cards import cards
from truthkit.evaluation.report.charts import Row, bars, top
from truthkit.evaluation.report.contents import Report, Section
from truthkit.evaluation.report.items import items, rules
from truthkit.evaluation.report.plane import plane, svg
from truthkit.evaluation.report.summary import about, findings, title
from truthkit.evaluation.report.words import YES, capital
from truthkit.markup import Markup, element, together

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(report: Report) -> str:
    """The whole document."""
    style = files("truthkit.evaluation.report").joinpath("page.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="generator", content=f"truthkit {truthkit.__version__}"),
        element("title", title(report)),
        element("style", Markup(style + rules(report))),
    )
    body = element(
        "body",
        element("header", _top(report)),
        element("main", *[_section(number, section) for number, section in enumerate(report.sections)]),
        element("footer", provenance.reading(report), provenance.provenance(report)),
    )
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'


def _top(report: Report) -> Markup:
    links = [element("a", section.title, href=f"#s{i}") for i, section in enumerate(report.sections)]
    return together(
        element("p", "truthkit report", class_="eyebrow"),
        element("h1", title(report)),
        element("p", about(report), class_="about"),
        element("nav", *links, aria_label="Sections") if len(links) > 1 else None,
        _notice(report.notes, "Folders"),
    )


def _notice(sentences: list[str], name: str) -> Markup | None:
    if not sentences:
        return None
    lines = [element("li", sentence) for sentence in sentences]
    return element("aside", element("h3", name), element("ul", *lines), class_="notice")


def _section(number: int, section: Section) -> Markup:
    axes = plane(section)
    return element(
        "section",
        element("h2", section.title, id=f"h{number}"),
        _notice(section.caveats, "Before you compare"),
        *[element("p", sentence, class_="finding") for sentence in findings(section)],
        _headline(section),
        _box("Every metric, with 95 % intervals", tables.metrics(section)),
        _box("Against the baseline, item by item", tables.tests(section)) if section.tested else None,
        _figure(
            f"{capital(section.scale().metric.title)} against cost",
            "Mean seconds per item, as the run measured them. Whiskers are 95 % intervals.",
            _scrolling("Plot", svg(section, axes)),
        )
        if axes
        else None,
        _curves(section),
        _yes(section),
        _box(f"{capital(section.scale().metric.title)} by category", tables.categories(section))
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
    return _figure(capital(scale.metric.title), note, bars(section, rows, scale, end, chance=chance))


def _curves(section: Section) -> Markup | None:
    if not (found := drawn.curves(section)):
        return None
    first = found[0][1]
    return _figure(first.title, first.note, _scrolling("Curves", drawn.svg(section, found)))


def _yes(section: Section) -> Markup | None:
    if section.yes_labels is None:
        return None
    truth = section.yes_labels.value
    rows: list[Row] = [(i, entry.yes, truth) for i, entry in enumerate(section.entries) if entry.yes is not None]
    note = (
        f"Share of answers read as yes. Dashed lines are at the share of right answers that are: {100 * truth:.1f} %."
    )
    return _figure("How often it says yes", note, bars(section, rows, YES, 1.0))


def _figure(name: str, note: str, chart: Markup) -> Markup:
    return element("figure", element("figcaption", element("h3", name), element("p", note)), chart)


def _box(name: str, content: tuple[Markup, str]) -> Markup:
    table, note = content
    caption = element("figcaption", element("h3", name), element("p", note))
    return element("figure", caption, _scrolling(name, table))


def _scrolling(name: str, content: Markup) -> Markup:
    """A box that scrolls where its content is wider than the page, by keys too."""
    return element("div", content, class_="scroll", tabindex="0", role="region", aria_label=name)
