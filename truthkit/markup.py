"""HTML in which text cannot become markup: only `element` makes it, and escapes every child that it did not make."""

from __future__ import annotations

import html

from truthkit.printable import printable

_VOID = {"meta", "img", "br", "wbr", "input"}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(text: str) -> Markup:
    """Any text as HTML, for content and for attributes in double quotes."""
    return Markup(html.escape(printable(text)))


def element(tag: str, *children: str | None, **attributes: str | float | bool | None) -> Markup:
    """An element.

    Args:
        tag: its name.
        children: `Markup` as it is, other text escaped, None left out.
        attributes: `class_` is `class`, `stroke_width` `stroke-width`; None and False are left out, True has no value.
    """
    parts = [tag]
    for name, value in attributes.items():
        if value is not None and value is not False:
            name = name.rstrip("_").replace("_", "-")
            parts.append(name if value is True else f'{name}="{escaped(str(value))}"')
    start = f"<{' '.join(parts)}>"
    return Markup(start if tag in _VOID else f"{start}{together(*children)}</{tag}>")


def together(*children: str | None) -> Markup:
    """Several children of `element` in a row."""
    return Markup("".join(c if isinstance(c, Markup) else escaped(c) for c in children if c is not None))
