"""Shapes that tell what a row is, and colours that tell its verdict; nothing is told by colour alone."""

from __future__ import annotations

import re

from truthkit.markup import Markup, element, together
from truthkit.study.pages.contents import (
    BASELINE,
    BETTER,
    CONTROL,
    EQUIVALENT,
    METHOD,
    NO_EVIDENCE,
    ROLES,
    VERDICTS,
    WORSE,
    Row,
)

_CLASSES = {BETTER: "better-own", WORSE: "worse-own", EQUIVALENT: "equivalent-own"}
_SHAPES = {
    METHOD: element("circle", r=5.5),
    CONTROL: element("path", d="M0 -6.5L6.5 0L0 6.5L-6.5 0Z", class_="hollow"),
    BASELINE: element("rect", x=-5, y=-5, width=10, height=10),
}
SIGN = "∗"
"""What marks a difference from greedy that is more than chance would give, after correction."""

COLOURS = {BETTER: "#2f6fd0", WORSE: "#d0661a", EQUIVALENT: "#1d9a77", NO_EVIDENCE: "#8a8f99", "": "#8a8f99"}
"""The colours of verdicts in pictures."""

MARKERS = {METHOD: "o", CONTROL: "D", BASELINE: "s"}
"""matplotlib's markers for roles; those of controls are hollow."""


def word(row: Row) -> str:
    """A row's verdict, or why it has none."""
    return row.verdict or ("control" if row.role == CONTROL else "not judged")


def verdict_class(verdict: str) -> str:
    """The class that colours a verdict on the page."""
    return _CLASSES.get(verdict, "unknown-own")


def shape(role: str) -> Markup:
    """A role's shape around (0, 0)."""
    return _SHAPES[role]


def key(role: str, verdict: str = "") -> Markup:
    """A role's shape in a verdict's colour, to stand before a name."""
    return element(
        "svg", shape(role), viewBox="-8 -8 16 16", class_=f"shape {verdict_class(verdict)}", aria_hidden="true"
    )


def breakable(text: str) -> Markup:
    """A text whose labels may go on in another line behind their options."""
    first, *others = re.split(r"(?<=[,:+/])(?=[^\W\d])", text)
    return together(first, *[part for other in others for part in (element("wbr"), other)])


def legend() -> Markup:
    """What shapes and colours mean."""
    shapes = [element("span", key(role), role) for role in ROLES]
    colours = [element("span", key(METHOD, verdict), verdict) for verdict in VERDICTS]
    return element("p", together(*shapes, *colours), class_="legend")
