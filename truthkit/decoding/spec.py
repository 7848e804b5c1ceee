"""Decoders written as text, `lol:omega=0.5,layers=14+18+22,refocus=true`, for command lines and config files.

`ritual:alpha=2+vcd` is both at once, as in `Together`. A sentence may hold commas; one that would be misread is put in
double quotes.

Options are checked against the decoder's own signature and converted by its annotations, so a new decoder or option
needs no entry here, and a misspelt one is an error that names the accepted ones. All of it is read from the decoder's
source: torch is imported by `DecoderSpec.build`.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from inspect import Parameter
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from truthkit.decoding.discovery import PLAIN, decoder_class, decoders
from truthkit.decoding.engine.controls import Control, combined
from truthkit.decoding.engine.registry import FROM_PROMPT
from truthkit.errors import ArgumentError, did_you_mean
from truthkit.written import join_options, split_name, split_sum


@dataclass(frozen=True)
class DecoderSpec:
    """A decoder's name with its options, not yet bound to a model.

    Attributes:
        text: as it was written.
        name: of a decoder, or one of `PLAIN`.
        options: keyword arguments for the decoder.
        parts: the decoders that are combined, where there are several; `name` is then those of all, joined by +, and
            `options` has each part's under its name, the second "vcd" as "vcd 2".
        inner: the decoder that this one has as its option `decoder`.
    """

    text: str
    name: str
    options: dict[str, Any]
    parts: tuple[DecoderSpec, ...] = ()
    inner: DecoderSpec | None = None

    @property
    def every(self) -> tuple[DecoderSpec, ...]:
        """The decoder itself, or its parts, and those that are within them."""
        own = self.parts or (self,)
        return (*own, *(one for part in own if part.inner is not None for one in part.inner.every))

    def takes(self, parameter: str) -> bool:
        """Whether the decoder, or one that it is made of, has a parameter of that name."""
        return any(parameter in parameters(part.name) for part in self.every)

    @property
    def needs_image(self) -> bool:
        """Whether the decoder, or one that it is made of, compares images."""
        return any(part.name not in PLAIN and decoders()[part.name].sees_images for part in self.every)

    def draws(self, sample: bool) -> bool:
        """Whether tokens are drawn: by "sample" always, by "greedy" never, by the others where `sample` asks for it."""
        return self.name == "sample" or (sample and self.name != "greedy")

    def build(self, model: Any, processor: Any, **supplied: Any) -> AbstractContextManager[Any]:
        """The decoder for `model`, to be entered around `generate`; one of `PLAIN` changes nothing.

        `supplied` are arguments that the caller knows, such as CAD's `context`. They override the options, and those
        that are None, or that the decoder has no parameter for, are left out.

        Raises:
            ArgumentError, ModelError, NotAvailableError: as the decoder's class, whose module is imported here.
        """
        if self.parts:
            from truthkit.decoding.engine.decoder import Together

            return Together(*(part.build(model, processor, **supplied) for part in self.parts))  # type: ignore[arg-type]
        if self.name in PLAIN:
            return nullcontext()
        own = parameters(self.name)
        known = {key: value for key, value in supplied.items() if value is not None and key in own}
        if self.inner is not None:
            known["decoder"] = self.inner.build(model, processor, **supplied)
        built: AbstractContextManager[Any] = decoder_class(self.name)(model, processor, **self.options | known)
        return built

    def controls(self) -> list[Control]:
        """What an honest table puts beside the decoder; see `Decoder.controls`."""
        if self.name in PLAIN:
            return [Control("greedy", "greedy")]
        every = [decoder_class(part.name).controls(**part.options) for part in self.every]
        return list(combined(every) if len(every) > 1 else every[0])


def parse_spec(text: str) -> DecoderSpec:
    """Read `name` or `name:option=value,option=value`.

    A list of numbers is written with plus signs, `layers=14+18+22`; truth values as `true` or `false`, None as `none`.

    Raises:
        ArgumentError: no such decoder or option, or a value of the wrong kind.
    """
    names = [*PLAIN, *decoders()]
    if len(pieces := split_sum(text, names)) > 1:
        parts = tuple(map(parse_spec, pieces))
        options: dict[str, Any] = {}
        for part in parts:
            if part.name in PLAIN or not decoders()[part.name].combines:
                raise ArgumentError(f"{part.name!r} cannot be combined with other decoders, as in {text.strip()!r}.")
            count = sum(one.name == part.name for one in parts[: len(options) + 1])
            options[part.name if count == 1 else f"{part.name} {count}"] = part.options
        return DecoderSpec(text.strip(), "+".join(part.name for part in parts), options, parts)
    name, pairs = split_name(text)
    if "+" in name:  # one of the names is none
        name = next((one for one in map(str.strip, name.split("+")) if one not in names), name)
    return _spec(text.strip(), name, _checked(name, pairs))


def spec_of(name: str, options: Mapping[str, str]) -> DecoderSpec:
    """The decoder `name` with options whose values are written as in `parse_spec`, but for quotes.

    Raises:
        ArgumentError: as in `parse_spec`.
    """
    stripped = {key: value.strip() for key, value in options.items()}
    checked = _checked(name, stripped.items())
    return _spec(join_options(name, stripped, [*PLAIN, *decoders()]), name, checked)


def _spec(text: str, name: str, options: dict[str, Any]) -> DecoderSpec:
    """A single decoder; the one that it has as its option `decoder`, if any, is read too."""
    if (known := options_of(name).get("decoder")) is None:
        return DecoderSpec(text, name, options)
    inner = parse_spec(options.get("decoder", known.default))
    if any(part.name in PLAIN or not decoders()[part.name].combines for part in inner.every):
        raise ArgumentError(f"decoder {name!r} cannot have {inner.name!r} as its decoder, in {text!r}.")
    return DecoderSpec(text, name, options, inner=inner)


def options_of(name: str) -> dict[str, Parameter]:
    """The options that may be written for a decoder."""
    return {key: parameter for key, parameter in parameters(name).items() if key not in FROM_PROMPT}


def parameters(name: str) -> dict[str, Parameter]:
    """The decoder's keyword-only parameters, with evaluated annotations."""
    return {} if name in PLAIN else decoders()[name].parameters


def _checked(name: str, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The values of a decoder's options, each of the kind that its parameter has."""
    if name not in (names := [*PLAIN, *decoders()]):
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
    for alternative, read, _ in _readers(hint):
        try:
            converted = read(value)
        except (ValueError, KeyError):
            continue
        for check in _checks(hint, alternative):
            check(converted)
        return converted
    raise ArgumentError(f"{where} is {value!r}; expected {' or '.join(kinds(hint))}.")


def kinds(hint: Any) -> list[str]:
    """What a value of an annotation may be written as, in words."""
    return [described for _, _, described in _readers(hint)]


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, without what `Annotated` adds to each."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(inner for one in get_args(hint) for inner in _alternatives(one))
    return (hint,)


def _checks(hint: Any, alternative: Any) -> list[Callable[[Any], Any]]:
    """The checks that `Annotated` adds to an annotation, or to that member of it which a value was read as."""
    if get_origin(hint) is Annotated:
        inner, *added = get_args(hint)
        return [*_checks(inner, alternative), *(one for one in added if isinstance(one, types.FunctionType))]
    if get_origin(hint) in (Union, types.UnionType):
        return [
            check for one in get_args(hint) if alternative in _alternatives(one) for check in _checks(one, alternative)
        ]
    return []


def _readers(hint: Any) -> list[tuple[Any, Callable[[str], Any], str]]:
    alternatives = _alternatives(hint)
    found: list[tuple[Any, Callable[[str], Any], str]] = []
    for one in alternatives:
        if get_origin(one) is Literal:
            allowed = {str(word): word for word in get_args(one)}
            found.append((one, allowed.__getitem__, " or ".join(map(repr, allowed))))
    for matches, read, words in _READERS:
        found += [(one, read, words) for one in alternatives if matches(one)][:1]
    return found


def _read_number(value: str) -> float:
    if not math.isfinite(number := float(value)):
        raise ValueError
    return number


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
    (lambda hint: hint is float, _read_number, "a number"),
    (lambda hint: hint == Sequence[int], _read_numbers, "integers joined by +"),
    (lambda hint: hint == Sequence[str], _read_names, "names joined by +"),
    (lambda hint: hint in (str, Any), str, "text"),
)
"""For each kind of annotation: how to tell it, how to read a value of it (ValueError or KeyError if not), its name."""
