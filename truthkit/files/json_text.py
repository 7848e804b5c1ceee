"""JSON as people's files have it, parsed so that whatever is wrong becomes one line."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterator
from typing import Any

from truthkit.errors import ArgumentError

_LONGEST = 300  # digits: more than any float holds, so what was read can be computed with
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BROKEN = re.compile(r"[\ud800-\udfff]")
_SPACE = re.compile(r"\s*")
_NEXT = re.compile(r"^[{\[]", re.MULTILINE)


class NotJson(ArgumentError):
    """A text is no JSON; `at` is where in it that shows."""

    def __init__(self, reason: str, at: int):
        super().__init__(reason)
        self.at = at


def shown(value: Any) -> str:
    """A parsed value for a message: short, however large or deeply nested it is."""
    return _SHORT.repr(value)


def parse(text: str) -> Any:
    """The one JSON value of a text.

    Raises:
        NotJson: it is none, is nested too deeply, has an integer of more than 300 digits or half a surrogate pair, or
            goes on behind the value.
    """
    value, end = _decode(text, _SPACE.match(text).end())  # type: ignore[union-attr]
    if rest := text[end:].lstrip():
        raise NotJson("not JSON: Extra data", len(text) - len(rest))
    return value


def stream(text: str) -> Iterator[tuple[int, Any]]:
    """The values of JSON lines, of one value over many lines, or of several such: the line where each begins, and it.

    What is no JSON comes as a `NotJson`, and the next value is looked for on a later line.
    """
    at, line, counted = _SPACE.match(text).end(), 1, 0  # type: ignore[union-attr]
    while at < len(text):
        line, counted = line + text.count("\n", counted, at), at
        stop = _line_end(text, at)
        value: Any
        try:
            value, end = _decode(text, at)
            stop = _line_end(text, end)
            if text[end:stop].strip():
                raise NotJson(f"not JSON: Extra data (column {end - text.rfind(chr(10), 0, end)})", end)
        except NotJson as error:
            value = error
            if error.at > stop:  # it went on over lines: look for the beginning of another one
                if not text[at + 1 : stop].strip() and text[at] == "[":
                    stop = len(text)
                else:
                    stop = found.start() if (found := _NEXT.search(text, stop)) else len(text)
            if _BROKEN.search(text, at, stop):
                value = NotJson("not UTF-8 text", at)
        yield line, value
        at = _SPACE.match(text, stop).end()  # type: ignore[union-attr]


def _decode(text: str, at: int) -> tuple[Any, int]:
    try:
        value, end = _DECODER.raw_decode(text, at)
        part = text[at:end]
        part.encode()
        if _SURROGATE.search(part):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        lines = f"line {error.lineno}, " if "\n" in text[at : error.pos] else ""
        raise NotJson(f"not JSON: {error.msg} ({lines}column {error.colno})", error.pos) from None
    except RecursionError:
        raise NotJson("its JSON is nested too deeply", at) from None
    except UnicodeEncodeError:
        raise NotJson("a character is no text (half of a surrogate pair, or not UTF-8)", at) from None
    except ValueError as error:
        raise NotJson(str(error), at) from None
    return value, end


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST:
        raise ValueError(f"an integer has {len(digits)} digits; expected {_LONGEST} at most")
    return int(digits)


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


_DECODER = json.JSONDecoder(parse_int=_integer)
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 100, 100
