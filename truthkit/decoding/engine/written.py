"""A decoder's options as text that `truthkit.decoding.spec` reads back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from truthkit.decoding.engine.registry import DECODERS
from truthkit.errors import ArgumentError

_ANOTHER_KIND = re.compile(r"none|true|false|[-+]?[\d.]+(e[-+]?\d+)?|nan|[-+]?inf(inity)?", re.IGNORECASE)
"""Texts that would be read as something else."""


def spec_text(name: str, options: Mapping[str, Any]) -> str:
    """`name:option=value,option=value`.

    Raises:
        ArgumentError: an option's value cannot be written.
    """
    written = [f"{key}={_written(name, key, value)}" for key, value in options.items()]
    return f"{name}:{','.join(written)}" if written else name


def shown(value: Any) -> str:
    """A value for the eye: what can be written as it is in Python, anything else by its type or name."""
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    return f"<{getattr(value, '__name__', type(value).__name__)}>"


def _written(name: str, key: str, value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str) and not _misread(value):
        return value
    if isinstance(value, Sequence) and value and not isinstance(value, str):
        if all(isinstance(one, int) and not isinstance(one, bool) for one in value):
            return "+".join(map(str, value))
        if len(value) > 1 and all(isinstance(one, str) and "+" not in one and not _misread(one) for one in value):
            return "+".join(value)
    raise ArgumentError(
        f"option {key!r} of decoder {name!r} is {shown(value)}, which cannot be written so that it is read back; "
        "keep it beside the decoder's name, or use a value that is a number, a word or a path."
    )


def _misread(text: str) -> bool:
    """Whether a text within a spec would be read as something else, or as the end of its option."""
    names = "|".join(map(re.escape, DECODERS))
    another = rf",\s*\w+\s*=|\+(greedy|sample|{names})\b"
    return not text.strip() or text != text.strip() or bool(_ANOTHER_KIND.fullmatch(text) or re.search(another, text))
