"""Decoders written as text, `lol:omega=0.5,layers=14+18+22,refocus=true`, for command lines and config files.

Options are checked against the decoder's own signature and converted by its annotations, so a new decoder or option
needs no entry here, and a misspelt one is an error that names the accepted ones.
"""

from __future__ import annotations

import difflib
import inspect
import re
import types
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from truthkit.decoding import DECODERS
from truthkit.errors import ArgumentError

PLAIN = ("greedy", "sample")
"""The model alone: its most probable token each time, or one drawn from its distribution."""

_FROM_PROMPT = {"context"}  # CAD's passage is a piece of the prompt, so whoever builds the prompt passes it
_NEXT_OPTION = re.compile(r",(?=\s*\w+\s*=)")  # a comma inside a value, as in an instruction, stays in it


@dataclass(frozen=True)
class DecoderSpec:
    """A decoder's name with its options, not yet bound to a model.

    Attributes:
        text: as it was written.
        name: a key of `DECODERS`, or one of `PLAIN`.
        options: keyword arguments for the decoder.
    """

    text: str
    name: str
    options: dict[str, Any]

    def takes(self, parameter: str) -> bool:
        """Whether the decoder has a parameter of that name."""
        return parameter in _parameters(self.name)

    def build(self, model: Any, processor: Any, **supplied: Any) -> AbstractContextManager[Any]:
        """The decoder for `model`, to be entered around `generate`; one of `PLAIN` changes nothing.

        `supplied` are arguments that the caller knows, such as CAD's `context`; they override the options.
        """
        if self.name in PLAIN:
            return nullcontext()
        return DECODERS[self.name](model, processor, **self.options | supplied)


def parse_spec(text: str) -> DecoderSpec:
    """Read `name` or `name:option=value,option=value`.

    A list of numbers is written with plus signs, `layers=14+18+22`; truth values as `true` or `false`, None as `none`.

    Raises:
        ArgumentError: no such decoder or option, or a value of the wrong kind.
    """
    name, _, rest = text.strip().partition(":")
    names = [*PLAIN, *DECODERS]
    if name not in names:
        raise ArgumentError(f"there is no decoder {name!r}{_hint(name, names)}; the decoders are {', '.join(names)}.")
    accepted = {key: hint for key, hint in _parameters(name).items() if key not in _FROM_PROMPT}
    options: dict[str, Any] = {}
    for pair in _NEXT_OPTION.split(rest) if rest.strip() else []:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if key not in accepted:
            accepts = f"its options are {', '.join(accepted)}" if accepted else "it has no options"
            raise ArgumentError(f"decoder {name!r} has no option {key!r}{_hint(key, accepted)}; {accepts}.")
        if not equals or not value:
            raise ArgumentError(f"option {key!r} of decoder {name!r} has no value; write {key}=VALUE.")
        if key in options:
            raise ArgumentError(f"option {key!r} of decoder {name!r} is given twice.")
        options[key] = _convert(value, accepted[key], f"option {key!r} of decoder {name!r}")
    return DecoderSpec(text.strip(), name, options)


def _parameters(name: str) -> dict[str, Any]:
    """The decoder's keyword-only parameters with their annotations."""
    if name in PLAIN:
        return {}
    parameters = inspect.signature(DECODERS[name], eval_str=True).parameters.values()
    return {
        parameter.name: parameter.annotation for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY
    }


def _hint(word: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(word.lower().replace("-", "_"), list(names), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _convert(value: str, hint: Any, where: str) -> Any:
    """`value` as the first kind that it can be, text last: a list of layers beats a word, `true` an instruction."""
    alternatives = set(get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,))
    expected = []
    for matches, read, described in _READERS:
        if any(matches(alternative) for alternative in alternatives):
            try:
                return read(value)
            except (ValueError, KeyError):
                expected.append(described)
    raise ArgumentError(f"{where} is {value!r}; expected {' or '.join(expected)}.")


def _read_numbers(value: str) -> list[int]:
    return [int(number) for number in value.split("+")]


_READERS: tuple[tuple[Any, Any, str], ...] = (
    (lambda hint: hint is type(None), lambda value: {"none": None}[value.lower()], "none"),
    (lambda hint: hint is bool, lambda value: {"true": True, "false": False}[value.lower()], "true or false"),
    (lambda hint: hint is int, int, "an integer"),
    (lambda hint: hint is float, float, "a number"),
    (lambda hint: hint == Sequence[int], _read_numbers, "integers joined by +"),
    (lambda hint: hint in (str, Any), str, "text"),
)
"""For each kind of annotation: how to tell it, how to read a value of it (ValueError or KeyError if not), its name."""
