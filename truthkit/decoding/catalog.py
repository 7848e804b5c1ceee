"""What each decoder is and which options it has, read from its signature and docstring, for pages and menus."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from truthkit.decoding.discovery import PLAIN, decoders
from truthkit.decoding.ranges import Range, sensible_range
from truthkit.decoding.spec import kinds, options_of, parameters

_PLAIN_SUMMARIES = {
    "greedy": "The model alone: its most probable token each time.",
    "sample": "The model alone: tokens drawn from its distribution.",
}


@dataclass(frozen=True)
class OptionInfo:
    """An option as it may be written in a `DecoderSpec`.

    Attributes:
        name: of the keyword argument.
        default: as it would be written.
        kinds: what a value may be written as, in words.
        help: of the decoder's docstring.
        choices: words that it takes, where there is a list of them.
        range: where its values make sense; None where nothing tells.
    """

    name: str
    default: str
    kinds: tuple[str, ...]
    help: str
    choices: tuple[str, ...] = ()
    range: Range | None = None


@dataclass(frozen=True)
class DecoderInfo:
    """A decoder, and what it needs beside a prompt."""

    name: str
    summary: str
    needs_image: bool
    needs_context: bool
    options: tuple[OptionInfo, ...]


def catalog() -> list[DecoderInfo]:
    """All decoders of the command line, those without views first."""
    alone = [
        DecoderInfo(name, _PLAIN_SUMMARIES[name], needs_image=False, needs_context=False, options=()) for name in PLAIN
    ]
    return alone + [_info(name) for name in decoders()]


def _info(name: str) -> DecoderInfo:
    decoder = decoders()[name]
    options = tuple(
        _option(key, parameter, decoder.help[key], decoder.choices[key]) for key, parameter in options_of(name).items()
    )
    return DecoderInfo(name, decoder.summary, decoder.sees_images, "context" in parameters(name), options)


def _option(key: str, parameter: Parameter, words: str, choices: tuple[str, ...]) -> OptionInfo:
    default, found = _written(parameter.default), tuple(kinds(parameter.annotation))
    return OptionInfo(key, default, found, words, choices, None if choices else sensible_range(words, default, found))


def _written(default: Any) -> str:
    if default is Parameter.empty:
        return ""
    return str(default).lower() if default is None or isinstance(default, bool) else str(default)
