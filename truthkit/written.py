"""A name with options in one line, `name:key=value,key=value`: how decoders, methods and steering are written.

A comma begins a new option only where `key=` follows, so a sentence may hold commas. A value that would be misread is
put in double quotes, as in JSON: `icd:amateur_prompt="Lie, lam=1, and lie."`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_NEXT = re.compile(r",(?=\s*\w+\s*=)")
_PLAIN = re.compile(rf"(?<==)\s*{_QUOTED}(?=\s*(?:,\s*\w+\s*=|\+\w|$))")


def split_name(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The name and its options, in their order; see `split_options`."""
    name, _, rest = text.strip().partition(":")
    return name, split_options(rest)


def split_options(text: str) -> list[tuple[str, str]]:
    """Pairs of key and value, as they were written but for quotes; an option without "=" has the value ""."""
    if not text.strip():
        return []
    pairs = []
    for item in _pieces(text, _NEXT):
        key, _, value = item.partition("=")
        pairs.append((key.strip(), _unquoted(value.strip())))
    return pairs


def split_sum(text: str, names: Iterable[str]) -> list[str]:
    """The parts of `one+other`, each of which begins with one of `names`; a + within a value joins other things."""
    known = "|".join(sorted(map(re.escape, names), key=len, reverse=True)) or "(?!)"
    return [piece.strip() for piece in _pieces(text, re.compile(rf"\+\s*(?=(?:{known})\s*(?:[:+]|$))"))]


def join_options(name: str, options: Mapping[str, str], names: Iterable[str] = ()) -> str:
    """What `split_name` reads back to the same name and options, and `split_sum` with `names` leaves in one piece."""
    listed = ",".join(f"{key}={_quoted(value, names)}" for key, value in options.items())
    return f"{name}:{listed}" if listed else name


def _pieces(text: str, between: re.Pattern[str]) -> list[str]:
    """`text` cut where `between` matches outside of quotes."""
    quoted = [match.span() for match in _PLAIN.finditer(text)]
    pieces, begin = [], 0
    for match in between.finditer(text):
        if not any(start <= match.start() < stop for start, stop in quoted):
            pieces.append(text[begin : match.start()])
            begin = match.end()
    return [*pieces, text[begin:]]


def _quoted(value: str, names: Iterable[str]) -> str:
    alone = split_options(f"k={value}") == [("k", value)] and len(split_sum(f"k={value}", names)) == 1
    return value if alone and not value.startswith('"') else json.dumps(value, ensure_ascii=False)


def _unquoted(value: str) -> str:
    if re.fullmatch(_QUOTED, value):
        with suppress(json.JSONDecodeError):
            return str(json.loads(value, strict=False))
    return value
