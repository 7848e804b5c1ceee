"""What each decoder is and which options it has, read from its signature and docstring, for pages and menus."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

from truthkit.decoding import DECODERS
from truthkit.decoding.spec import PLAIN, kinds, options_of, parameters, parse_spec
from truthkit.images.transforms import TRANSFORMS

_PLAIN_SUMMARIES = {
    "greedy": "The model alone: its most probable token each time.",
    "sample": "The model alone: tokens drawn from its distribution.",
}
_CHOICES = {"transform": ("random", *TRANSFORMS), "layers": ("low", "high")}
_ENTRY = re.compile(r"^ {4}([\w, ]+): (.+(?:\n {8}.+)*)", re.MULTILINE)


@dataclass(frozen=True)
class OptionInfo:
    """An option as it may be written in a `DecoderSpec`.

    Attributes:
        name: of the keyword argument.
        default: as it would be written.
        kinds: what a value may be written as, in words.
        help: of the decoder's docstring.
        choices: words that it takes, where there is a list of them.
    """

    name: str
    default: str
    kinds: tuple[str, ...]
    help: str
    choices: tuple[str, ...] = ()


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
    return [_described(name) for name in (*PLAIN, *DECODERS)]


def _described(name: str) -> DecoderInfo:
    options = tuple(
        OptionInfo(
            key,
            _written(parameter.default),
            tuple(kinds(parameter.annotation)),
            _help(DECODERS[name], key),
            _CHOICES.get(key, ()),
        )
        for key, parameter in options_of(name).items()
    )
    summary = _PLAIN_SUMMARIES.get(name) or _first_paragraph(DECODERS[name])
    return DecoderInfo(name, summary, parse_spec(name).needs_image, "context" in parameters(name), options)


def _written(default: Any) -> str:
    return str(default).lower() if default is None or isinstance(default, bool) else str(default)


def _first_paragraph(decoder: type) -> str:
    return _plain((inspect.getdoc(decoder) or "").split("\n\n")[0])


def _help(decoder: type, option: str) -> str:
    """The docstring's words on an option; where they say "as in" its base class, the base's words."""
    for owner in decoder.__mro__:
        for names, words in _ENTRY.findall(inspect.cleandoc(owner.__doc__ or "")):
            if option in re.split(r",\s*", names) and not words.startswith("as in "):
                return _plain(words)
    return ""


def _plain(words: str) -> str:
    return " ".join(words.replace("`", "").split())
