"""The frame of a page, and the boxes in it: no script, no network, light and dark, on paper and on a telephone."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import truthkit
from truthkit.markup import Markup, element, together

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def document(title: str, *body: Markup, style: str = "") -> str:
    """A whole document with the reports' style, and more of it behind."""
    own = files("truthkit.evaluation.report").joinpath("page.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="generator", content=f"truthkit {truthkit.__version__}"),
        element("title", title),
        element("style", Markup(own + style)),
    )
    return f'<!doctype html>\n<html lang="en">{head}{element("body", *body)}</html>\n'


def contents(titles: Sequence[str]) -> Markup | None:
    """Links to the sections `s0`, `s1` and so on; nothing for a single one."""
    links = [element("a", title, href=f"#s{number}") for number, title in enumerate(titles)]
    return element("nav", *links, aria_label="Sections") if len(links) > 1 else None


def notice(sentences: Sequence[str], name: str) -> Markup | None:
    """What has to be seen before the rest; nothing where there are no sentences."""
    if not sentences:
        return None
    lines = [element("li", sentence) for sentence in sentences]
    return element("aside", element("h3", name), element("ul", *lines), class_="notice")


def figure(name: str, note: str, *content: Markup) -> Markup:
    """A chart or a table under its name and a note on how to read it."""
    return element("figure", element("figcaption", element("h3", name), element("p", note)), *content)


def box(name: str, content: tuple[Markup, str]) -> Markup:
    """A table and its note as a figure that scrolls."""
    table, note = content
    return figure(name, note, scrolling(name, table))


def scrolling(name: str, content: Markup) -> Markup:
    """A box that scrolls where its content is wider than the page, by keys too."""
    return element("div", content, class_="scroll", tabindex="0", role="region", aria_label=name)


def listing(known: dict[str, str]) -> Markup | None:
    """Names and what they stand for."""
    rows = [together(element("dt", name), element("dd", value)) for name, value in known.items()]
    return element("dl", *rows) if rows else None
