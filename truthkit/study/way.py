"""A way to answer: a decoder with its options, steering, and how tokens are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from truthkit.decoding.discovery import PLAIN, decoders
from truthkit.decoding.spec import DecoderSpec, parse_spec
from truthkit.errors import ArgumentError
from truthkit.steering.spec import parse_steer

_OF_DRAWING = ("steer", "temperature", "top_p")
"""Keys of a grid that are no options of the decoder."""


@dataclass(frozen=True)
class Way:
    """How items are answered.

    Attributes:
        decoder: as text, as of `truthkit eval`.
        steer: as text, as of `truthkit eval`, its file by its path here; None for none.
        sample, temperature, top_p: of drawing tokens.
        options: of the benchmark, beyond those of its entry, by name: a detector for one.
    """

    decoder: str = "greedy"
    steer: str | None = None
    sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def spec(self) -> DecoderSpec:
        """The decoder, read."""
        return parse_spec(self.decoder)

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn."""
        return self.sample or self.spec.name == "sample"

    @property
    def seeded(self) -> bool:
        """Whether another seed gives other answers."""
        return self.draws or self.spec.takes("seed")

    @property
    def label(self) -> str:
        """For tables: decoder, steering, options and temperature."""
        parts = [self.decoder] if self.decoder != "greedy" or not (self.steer or self.options) else []
        parts += [f"steer {self.steered}"] if self.steer else []
        parts += [written(*option) for option in self.options]
        if self.draws:
            cut = f", top-p {self.top_p:g}" if self.top_p < 1 else ""
            parts[-1] += f", sampled at {self.temperature:.2g}{cut}"
        return ", ".join(parts)

    @property
    def steered(self) -> str | None:
        """The steering without the folder of its file."""
        if self.steer is None:
            return None
        path = parse_steer(self.steer).path
        return self.steer.replace(path, Path(path).name, 1)

    @property
    def method(self) -> str:
        """The method's name, as its class has it."""
        if self.options and self.decoder == "greedy" and not self.steer:
            return ", ".join(written(*option) for option in self.options)
        names = [part.name for part in self.spec.every]
        found = " + ".join(name if name in PLAIN else decoders()[name].class_name for name in names)
        return f"{found} + steering" if self.steer else found

    def with_options(self, values: Mapping[str, Any]) -> Way:
        """The same with these options of the decoder, or another steering, temperature or top_p.

        Raises:
            ArgumentError: the decoder has no such option, or is made of several.
        """
        own = {key: value for key, value in values.items() if key not in _OF_DRAWING}
        other = {key: value for key, value in values.items() if key in _OF_DRAWING}
        if own and self.spec.parts:
            raise ArgumentError(f"a grid is of one decoder, and {self.decoder!r} is several; list them as methods.")
        for key in own:
            if key in self.spec.options:
                raise ArgumentError(f"the grid has {key!r}, which {self.decoder!r} states already.")
        added = ",".join(f"{key}={_written(value)}" for key, value in own.items())
        between = "" if not added else "," if ":" in self.decoder else ":"
        return replace(self, decoder=f"{self.decoder}{between}{added}", **other)

    def checked(self) -> Way:
        """The same, after its decoder and steering were read.

        Raises:
            ArgumentError: they cannot be read.
        """
        _ = self.spec
        if self.steer is not None:
            parse_steer(self.steer)
        if not isinstance(self.temperature, int | float) or not self.temperature > 0:
            raise ArgumentError(f"temperature is {self.temperature!r}; expected a number above 0.")
        return self

    def controls(self) -> list[Way]:
        """What an honest table puts beside it: those of its decoder, and of steering each half alone."""
        plain = replace(self, steer=None)
        found = [
            Way(one.decoder, None, one.sample, self.temperature / one.cooler, self.top_p if one.sample else 1.0)
            for one in self.spec.controls()
        ]
        found = [replace(one, temperature=1.0) if not one.draws else one for one in found]
        if self.steer is not None and self.decoder != "greedy":
            found += [plain, replace(self, decoder="greedy")]
        return list(dict.fromkeys(found))


def written(name: str, value: Any) -> str:
    """An option of a task: a word says what it is of by itself, as a detector's name."""
    return value if isinstance(value, str) else f"{name}={value}"


GREEDY = Way()
"""What every set has, and every method is held against."""


def _written(value: Any) -> str:
    """A value of a grid as a decoder's option is written."""
    if isinstance(value, bool):
        return str(value).lower()
    return "+".join(map(_written, value)) if isinstance(value, list) else str(value)
