"""Pages of texts whose tokens are shaded by a number, with a legend and its scale; light and dark, no script.

A shade is from -1, the strongest orange, over 0, no colour, to 1, the strongest blue; a page of one direction has one
colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from truthkit.markup import Markup, element, together

_STRONGEST = 70  # percent of the colour: the text on it stays readable
_STYLE = """
:root { --paper: #ffffff; --ink: #1b1d21; --quiet: #5d616a; --rule: #e3e3de; --blue: #2f7fd6; --orange: #e0791a }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14161a; --ink: #ececea; --quiet: #a2a7b1; --rule: #30343c; --blue: #2f75c4; --orange: #b85f12 }
}
* { box-sizing: border-box }
body { max-width: 50rem; margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 2rem) 4rem; overflow-wrap: anywhere;
  font: 16px/1.7 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif;
  color: var(--ink); background: var(--paper) }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 0.8rem }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0.1rem 1.2rem; margin: 0 }
dl { font-size: 0.9rem }
dt, .quiet { color: var(--quiet) } dd { margin: 0 }
figure { margin: 1.4rem 0; max-width: 30rem }
.bar { display: block; height: 0.9rem; border-radius: 3px }
.ticks { display: flex; justify-content: space-between; font-size: 0.84rem; font-variant-numeric: tabular-nums }
.ticks span:nth-child(2) { text-align: center } .ticks span:last-child { text-align: right }
figcaption { color: var(--quiet); font-size: 0.88rem; line-height: 1.5; margin-top: 0.3rem }
article { border-top: 1px solid var(--rule); padding: 1rem 0 } article p { margin: 0.3rem 0; white-space: pre-wrap }
.text span { border-radius: 3px } .up { background: color-mix(in srgb, var(--blue) var(--heat), transparent) }
.down { background: color-mix(in srgb, var(--orange) var(--heat), transparent) }
.text span:hover { outline: 1px solid var(--ink) }
.score { font-variant-numeric: tabular-nums; color: var(--quiet) }
@media print { :root { --paper: #fff; --ink: #000; --quiet: #444 } span { print-color-adjust: exact } }
"""


@dataclass(frozen=True)
class Legend:
    """What the shades say.

    Attributes:
        ticks: the numbers at the left end, in the middle and at the right end, as text, with their unit; none where
            nothing is shaded.
        shades: of the two ends.
        note: how to read it.
    """

    ticks: tuple[str, ...] = ()
    shades: tuple[float, float] = (-1.0, 1.0)
    note: str = ""


def token(text: str | Sequence[str], shade: float, value: str) -> Markup:
    """A token in its shade; the value shows on pointing."""
    parts = [text] if isinstance(text, str) else text
    heat = f"--heat:{round(_STRONGEST * abs(shade))}%"
    return element("span", *parts, title=value, class_="down" if shade < 0 else "up", style=heat)


def page(title: str, facts: Mapping[str, str], legend: Legend, articles: Sequence[Markup]) -> str:
    """The whole document.

    Args:
        title: of the page.
        facts: what was done, by name: model, vector, layer, method.
        legend: of the shades.
        articles: the texts.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(_STYLE)),
    )
    about = [together(element("dt", name), element("dd", value)) for name, value in facts.items()]
    body = element(
        "body", element("h1", title), element("dl", *about) if about else None, _drawn(legend), *map(_article, articles)
    )
    return f'<!doctype html>\n<html lang="en">{head}\n{body}</html>\n'


def _article(content: Markup) -> Markup:
    return element("article", content)


def _drawn(legend: Legend) -> Markup:
    ends = [
        f"color-mix(in srgb, var(--{'orange' if shade < 0 else 'blue'}) {round(_STRONGEST * abs(shade))}%, transparent)"
        for shade in legend.shades
    ]
    stops = ", ".join((ends[0], "transparent", ends[1]) if legend.shades[0] * legend.shades[1] < 0 else ends)
    note = element("figcaption", legend.note)
    if not legend.ticks:
        return element("figure", note)
    return element(
        "figure",
        element("span", class_="bar", style=f"background:linear-gradient(to right, {stops})"),
        element("div", *(element("span", tick) for tick in legend.ticks), class_="ticks"),
        note,
    )
