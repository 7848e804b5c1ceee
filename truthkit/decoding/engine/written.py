"""A decoder's options as text that `truthkit.decoding.spec` reads back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from truthkit.decoding.engine.registry import DECODERS
from truthkit.errors import ArgumentError
from truthkit.written import join_options

_ANOTHER_KIND = re.compile(r"none|true|false|[-+]?[\d.]+(e[-+]?\d+)?|nan|[-+]?inf(inity)?", re.IGNORECASE)
"""Texts that would be read as something else."""


def spec_text(name: str, options: Mapping[str, Any]) -> str:
    """`name:option=value,option=value`.

    Raises:
        ArgumentError: an option's value cannot be written.
    """
    return join_options(name, {key: _written(name, key, value) for key, value in options.items()}, DECODERS)


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
    if isinstance(value, str) and _is_text(value):
        return value
    if isinstance(value, Sequence) and value and not isinstance(value, str):
        if all(isinstance(one, int) and not isinstance(one, bool) for one in value):
            return "+".join(map(str, value))
        if len(value) > 1 and all(isinstance(one, str) and "+" not in one and _is_text(one) for one in value):
            return "+".join(value)
    raise ArgumentError(
        f"option {key!r} of decoder {name!r} is {shown(value)}, which cannot be written so that it is read back; "
        "keep it beside the decoder's name, or use a value that is a number, a word or a path."
    )


def _is_text(value: str) -> bool:
    """Whether it is read back as text, and as this text."""
    return bool(value.strip()) and value == value.strip() and not _ANOTHER_KIND.fullmatch(value)
