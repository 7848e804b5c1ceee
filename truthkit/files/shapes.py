"""What a parsed JSON value has to look like, said once per format and checked in one call."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from truthkit.errors import ArgumentError
from truthkit.files.json_text import shown


class Kind(NamedTuple):
    """A kind of plain value: its name in messages, and whether a value is of it."""

    name: str
    fits: Callable[[Any], bool]


Shape: TypeAlias = "Kind | list[Any] | dict[str, Any]"
"""A kind; `[shape]`, a list of such; or an object from field to shape, where a name that ends in "!" must be there, and
"*" is for every field that is not named."""

ANYTHING = Kind("anything", lambda value: True)
TEXT = Kind("a text", lambda value: isinstance(value, str))
INTEGER = Kind("an integer", lambda value: isinstance(value, int) and not isinstance(value, bool))
NUMBER = Kind("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool))
FINITE = Kind("a finite number", lambda value: NUMBER.fits(value) and math.isfinite(value))
TRUTH = Kind("true or false", lambda value: isinstance(value, bool))


def optional(kind: Kind) -> Kind:
    """A kind, or null."""
    return Kind(f"{kind.name} or null", lambda value: value is None or kind.fits(value))


def check(value: Any, shape: Shape, where: str) -> None:
    """Raise unless `value` has this shape; `where` is what the message calls it.

    Raises:
        ArgumentError: it has not; the message names the first place that is amiss.
    """
    if isinstance(shape, Kind):
        if not shape.fits(value):
            raise ArgumentError(f"{where} is {shown(value)}; expected {shape.name}.")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise ArgumentError(f"{where} is {shown(value)}; expected a list.")
        for number, part in enumerate(value, 1):
            check(part, shape[0], f"{where}, number {number},")
    else:
        if not isinstance(value, dict):
            raise ArgumentError(f"{where} is {shown(value)}; expected an object with fields.")
        named = {name.removesuffix("!"): inner for name, inner in shape.items()}
        for name in shape:
            if name.endswith("!") and name[:-1] not in value:
                raise ArgumentError(f"{where} has no {name[:-1]!r}.")
        for name, part in value.items():
            if (inner := named.get(name, named.get("*"))) is not None:
                check(part, inner, f"{name!r} of {where}")
