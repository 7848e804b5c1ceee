"""Decoders written as text, `lol:omega=0.5,layers=14+18+22,refocus=true`, for command lines and config files.

`ritual:alpha=2+vcd` is both at once, as in `Together`.

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

from truthkit.decoding import DECODERS, Decoder, Together
from truthkit.errors import ArgumentError

PLAIN = ("greedy", "sample")
"""The model alone: its most probable token each time, or one drawn from its distribution."""

_FROM_PROMPT = {"context", "images"}  # they are in the prompt, so whoever builds the prompt passes them
_NEXT_OPTION = re.compile(r",(?=\s*\w+\s*=)")  # a comma inside a value, as in an instruction, stays in it


@dataclass(frozen=True)
class DecoderSpec:
    """A decoder's name with its options, not yet bound to a model.

    Attributes:
        text: as it was written.
        name: a key of `DECODERS`, or one of `PLAIN`.
        options: keyword arguments for the decoder.
        parts: the decoders that are combined, where there are several; `name` and `options` are then those of all.
    """

    text: str
    name: str
    options: dict[str, Any]
    parts: tuple[DecoderSpec, ...] = ()

    def takes(self, parameter: str) -> bool:
        """Whether the decoder, or one of its parts, has a parameter of that name."""
        return any(parameter in _parameters(part.name) for part in self.parts or (self,))

    def build(self, model: Any, processor: Any, **supplied: Any) -> AbstractContextManager[Any]:
        """The decoder for `model`, to be entered around `generate`; one of `PLAIN` changes nothing.

        `supplied` are arguments that the caller knows, such as CAD's `context`; they override the options.
        """
        if self.parts:
            own = [{key: value for key, value in supplied.items() if part.takes(key)} for part in self.parts]
            built: list[Any] = [p.build(model, processor, **known) for p, known in zip(self.parts, own, strict=True)]
            return Together(*built)
        if self.name in PLAIN:
            return nullcontext()
        return DECODERS[self.name](model, processor, **self.options | supplied)


def parse_spec(text: str) -> DecoderSpec:
    """Read `name` or `name:option=value,option=value`.

    A list of numbers is written with plus signs, `layers=14+18+22`; truth values as `true` or `false`, None as `none`.

    Raises:
        ArgumentError: no such decoder or option, or a value of the wrong kind.
    """
    names = [*PLAIN, *DECODERS]
    if len(pieces := re.split(rf"\+(?=(?:{'|'.join(names)})\b)", text.strip())) > 1:
        parts = tuple(map(parse_spec, pieces))
        for part in parts:
            if part.name in PLAIN or not issubclass(DECODERS[part.name], Decoder):
                raise ArgumentError(f"{part.name!r} cannot be combined with other decoders, as in {text.strip()!r}.")
        options = {part.name: part.options for part in parts}
        return DecoderSpec(text.strip(), "+".join(part.name for part in parts), options, parts)
    name, _, rest = text.strip().partition(":")
    if name not in names:
        raise ArgumentError(f"there is no decoder {name!r}{_hint(name, names)}; the decoders are {', '.join(names)}.")
    accepted = {key: hint for key, hint in _parameters(name).items() if key not in _FROM_PROMPT}
    options = {}
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


def _read_names(value: str) -> list[str]:
    names = value.split("+")
    if len(names) == 1:
        raise ValueError
    return names


_READERS: tuple[tuple[Any, Any, str], ...] = (
    (lambda hint: hint is type(None), lambda value: {"none": None}[value.lower()], "none"),
    (lambda hint: hint is bool, lambda value: {"true": True, "false": False}[value.lower()], "true or false"),
    (lambda hint: hint is int, int, "an integer"),
    (lambda hint: hint is float, float, "a number"),
    (lambda hint: hint == Sequence[int], _read_numbers, "integers joined by +"),
    (lambda hint: hint == Sequence[str], _read_names, "names joined by +"),
    (lambda hint: hint in (str, Any), str, "text"),
)
"""For each kind of annotation: how to tell it, how to read a value of it (ValueError or KeyError if not), its name."""
