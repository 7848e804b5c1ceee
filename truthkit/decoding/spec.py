"""Decoders written as text, `lol:omega=0.5,layers=14+18+22,refocus=true`, for command lines and config files.

`ritual:alpha=2+vcd` is both at once, as in `Together`.

Options are checked against the decoder's own signature and converted by its annotations, so a new decoder or option
needs no entry here, and a misspelt one is an error that names the accepted ones.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from truthkit.decoding import DECODERS, Decoder, Together
from truthkit.decoding.engine.controls import Control, combined, model_alone
from truthkit.errors import ArgumentError, did_you_mean

PLAIN = ("greedy", "sample")
"""The model alone: its most probable token each time, or one drawn from its distribution."""

_FROM_PROMPT = {"context", "images"}  # they are in the prompt, so whoever builds the prompt passes them
_SEES_IMAGES = {"ritual", "ritual_plus", "vcd", "m3id"}
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
        return any(parameter in parameters(part.name) for part in self.parts or (self,))

    @property
    def needs_image(self) -> bool:
        """Whether the decoder, or one of its parts, compares images."""
        return any(part.name in _SEES_IMAGES for part in self.parts or (self,))

    def draws(self, sample: bool) -> bool:
        """Whether tokens are drawn: by "sample" always, by "greedy" never, by the others where `sample` asks for it."""
        return self.name == "sample" or (sample and self.name != "greedy")

    def controls(self) -> list[Control]:
        """The decoders and sampling settings that an honest table puts beside it."""
        if self.parts:
            return list(combined(part.controls() for part in self.parts))
        if self.name in PLAIN:
            return [Control("greedy", "greedy")]
        known = {key: parameter.default for key, parameter in parameters(self.name).items()} | self.options
        return list(model_alone(1 + known["alpha"] if self.takes("transform") else 1.0, known.get("beta") or 0.0))

    def build(self, model: Any, processor: Any, **supplied: Any) -> AbstractContextManager[Any]:
        """The decoder for `model`, to be entered around `generate`; one of `PLAIN` changes nothing.

        `supplied` are arguments that the caller knows, such as CAD's `context`. They override the options, and those
        that are None, or that the decoder has no parameter for, are left out.
        """
        if self.parts:
            built: list[Any] = [part.build(model, processor, **supplied) for part in self.parts]
            return Together(*built)
        if self.name in PLAIN:
            return nullcontext()
        known = {key: value for key, value in supplied.items() if value is not None and self.takes(key)}
        return DECODERS[self.name](model, processor, **self.options | known)


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
    pairs = [_pair(pair) for pair in _NEXT_OPTION.split(rest)] if rest.strip() else []
    options = _checked(name, pairs)
    return DecoderSpec(text.strip(), name, options)


def spec_of(name: str, options: Mapping[str, str]) -> DecoderSpec:
    """The decoder `name` with options whose values are written as in `parse_spec`, commas and all.

    Raises:
        ArgumentError: as in `parse_spec`.
    """
    written = ",".join(f"{key}={value.strip()}" for key, value in options.items())
    checked = _checked(name, [(key, value.strip()) for key, value in options.items()])
    return DecoderSpec(f"{name}:{written}" if written else name, name, checked)


def options_of(name: str) -> dict[str, inspect.Parameter]:
    """The options that may be written for a decoder."""
    return {key: parameter for key, parameter in parameters(name).items() if key not in _FROM_PROMPT}


def parameters(name: str) -> dict[str, inspect.Parameter]:
    """The decoder's keyword-only parameters, with evaluated annotations."""
    if name in PLAIN:
        return {}
    found = inspect.signature(DECODERS[name], eval_str=True).parameters
    return {key: parameter for key, parameter in found.items() if parameter.kind is parameter.KEYWORD_ONLY}


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key.strip(), value.strip()


def _checked(name: str, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The values of a decoder's options, each of the kind that its parameter has."""
    if name not in (names := [*PLAIN, *DECODERS]):
        raise ArgumentError(
            f"there is no decoder {name!r}{did_you_mean(name, names)}; the decoders are {', '.join(names)}."
        )
    accepted = options_of(name)
    options: dict[str, Any] = {}
    for key, value in pairs:
        if key not in accepted:
            accepts = f"its options are {', '.join(accepted)}" if accepted else "it has no options"
            raise ArgumentError(f"decoder {name!r} has no option {key!r}{did_you_mean(key, accepted)}; {accepts}.")
        if not value:
            raise ArgumentError(f"option {key!r} of decoder {name!r} has no value; write {key}=VALUE.")
        if key in options:
            raise ArgumentError(f"option {key!r} of decoder {name!r} is given twice.")
        options[key] = _convert(value, accepted[key].annotation, f"option {key!r} of decoder {name!r}")
    return options


def _convert(value: str, hint: Any, where: str) -> Any:
    """`value` as the first kind that it can be, text last: a list of layers beats a word, `true` an instruction."""
    for read, _ in _readers(hint):
        with suppress(ValueError, KeyError):
            return read(value)
    raise ArgumentError(f"{where} is {value!r}; expected {' or '.join(kinds(hint))}.")


def kinds(hint: Any) -> list[str]:
    """What a value of an annotation may be written as, in words."""
    return [described for _, described in _readers(hint)]


def _readers(hint: Any) -> list[tuple[Callable[[str], Any], str]]:
    alternatives = set(get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,))
    return [(read, described) for matches, read, described in _READERS if any(matches(kind) for kind in alternatives)]


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
