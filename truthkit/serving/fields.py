"""Fields of a JSON document, each of the kind that is expected of it, or an error that names it."""

from __future__ import annotations

import reprlib
from typing import Any

from truthkit.errors import ArgumentError, did_you_mean

_MOST = 10_000  # characters of a text
_LARGEST = 1e30


def object_of(value: Any, name: str, known: str | None = None) -> dict[str, Any]:
    """A JSON object, whose fields are among `known`, words of a text."""
    if not isinstance(value, dict):
        raise ArgumentError(f"{name} is not a JSON object.")
    names = value if known is None else known.split()
    for field in value:
        if field not in names:
            meant = did_you_mean(field[:100], names)
            raise ArgumentError(f"{name} has a field {reprlib.repr(field)}{meant}; expected {', '.join(names)}.")
    return value


def list_of(value: Any, name: str, most: int) -> list[Any]:
    """A list of at most `most` values."""
    if not isinstance(value, list) or len(value) > most:
        raise ArgumentError(f"{name} is not a list of at most {most}.")
    return value


def text_of(fields: dict[str, Any], name: str, most: int = _MOST) -> str:
    """A text of at most `most` characters, which UTF-8 can hold; without one ""."""
    value = fields.get(name, "")
    name = name if len(name) <= 100 else reprlib.repr(name)
    if not isinstance(value, str):
        raise ArgumentError(f"{name} is {reprlib.repr(value)}; expected text.")
    if len(value) > most:
        raise ArgumentError(f"{name} has {len(value)} characters; shorten it to {most}.")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ArgumentError(f"{name} has half a character, a lone surrogate; expected text that UTF-8 can hold.")
    return value


def flag_of(fields: dict[str, Any], name: str) -> bool:
    """A truth value; without one False."""
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} is {reprlib.repr(value)}; expected true or false.")
    return value


def number_of(fields: dict[str, Any], name: str) -> float | None:
    """A finite number; None without one."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        raise ArgumentError(f"{name} is {reprlib.repr(value)}; expected a number.")
    return float(value)


def integer_of(fields: dict[str, Any], name: str, default: int, least: int, most: int) -> int:
    """An integer from `least` to `most`."""
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ArgumentError(f"{name} is {reprlib.repr(value)}; expected an integer from {least} to {most}.")
    return value
