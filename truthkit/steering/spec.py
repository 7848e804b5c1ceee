"""Steering and positions written as text, for command lines and config files."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from truthkit.activations.positions import Position, Positions, Role, Text, check_positions
from truthkit.errors import ArgumentError, did_you_mean
from truthkit.steering.names import FORMATS, check_mode
from truthkit.steering.where_spec import parse_where
from truthkit.written import split_options

if TYPE_CHECKING:
    from truthkit.steering.steer import Steering
    from truthkit.steering.vector import SteeringVector
    from truthkit.steering.vision import VisionSteering, VisionVector

_OPTIONS = ("layers", "positions", "mode", "keep_norm", "where")
_SLICE = re.compile(r"(-?\d{1,9}|):(-?\d{1,9}|)")


def parse_layers(text: str) -> list[int] | Literal["all"]:
    """Layer numbers from `10`, `10+12+-1` or `8-20` (both ends included), or "all".

    Raises:
        ArgumentError: it is none of these.
    """
    if text.strip() == "all":
        return "all"
    layers: list[int] = []
    for part in map(str.strip, text.split("+")):
        if match := re.fullmatch(r"(\d{1,5})-(\d{1,5})", part):
            layers += range(int(match[1]), int(match[2]) + 1)
        elif re.fullmatch(r"-?\d{1,5}", part):
            layers.append(int(part))
        else:
            raise ArgumentError(f"layers is {text!r}; expected all, or numbers like 10, 10+12+-1 or 8-20.")
    if not layers:
        raise ArgumentError(f"layers is {text!r}, which names none; the first of a range must not exceed the last.")
    return layers


def parse_positions(text: str) -> Positions:
    """Positions from their names, numbers, `a:b` slices, `role:NAME` and `text:PASSAGE`; several are joined by `+`.

    A passage runs to the end of the text, so it comes last.

    Raises:
        ArgumentError: it is none of these.
    """
    head, mark, passage = text.partition("text:")
    parts: list[Position] = [_position(part.strip()) for part in head.strip().strip("+").split("+") if part.strip()]
    if mark:
        parts.append(Text(passage))
    if not parts:
        raise ArgumentError(f"positions is {text!r}; expected for example last, generated, -2, 3:10 or role:user.")
    return parts[0] if len(parts) == 1 else tuple(parts)


def _position(text: str) -> Position:
    if re.fullmatch(r"-?\d{1,9}", text):
        return int(text)
    if match := _SLICE.fullmatch(text):
        return slice(*(int(end) if end else None for end in match.groups()))
    if text.startswith("role:"):
        return Role(text.removeprefix("role:"))
    check_positions(text)
    return text


@dataclass(frozen=True)
class SteerSpec:
    """A vector file with a strength and options, not yet bound to a model.

    Attributes:
        text: as it was written.
        path: the vector's file.
        strength: how strongly; None is what `truthkit extract --select` found best, else 1, in a vision tower 0.09.
        options: keyword arguments for `SteeringVector.steer`; conditions (`where`) as they were written.
        allow_other_model: steer another model than the one the vector was made from, too.
    """

    text: str
    path: str
    strength: float | None
    options: dict[str, Any]
    allow_other_model: bool = False

    def load(self) -> SteeringVector | VisionVector:
        """The vector of the file.

        Raises:
            ArgumentError, NotAvailableError: as `read_vector`; or it is of a vision tower, whose tokens, mode and
                conditions are not to choose.
        """
        from truthkit.steering.formats import read_vector
        from truthkit.steering.vector_file import is_of_vision
        from truthkit.steering.vision import VisionVector

        if not is_of_vision(self.path):
            return read_vector(self.path)
        if other := self.options.keys() - {"layers"}:
            raise ArgumentError(
                f"{self.text!r} steers a vision tower, where all image tokens are moved as by tk.VTI; leave out "
                f"{', '.join(sorted(other))}."
            )
        return VisionVector.load(self.path)

    def build(self, model: Any, processor: Any = None) -> Steering | VisionSteering:
        """The steering for `model`, to be entered around `generate`, outside of a decoder that reads early exits.

        Raises:
            ArgumentError, ModelError, NotAvailableError: the file is no vector, or not for this model.
        """
        return self.on(self.load(), model, processor)

    def on(self, vector: SteeringVector | VisionVector, model: Any, processor: Any = None) -> Steering | VisionSteering:
        """The same for `vector`, the file's, where it is loaded already."""
        from truthkit.steering.vision import VisionSteering, VisionVector

        if isinstance(vector, VisionVector):
            layers = self.options.get("layers")
            return VisionSteering(
                model,
                vector,
                strength=self.strength_of(vector),
                layers=None if layers == "all" else layers,
                allow_other_model=self.allow_other_model,
            )
        return vector.steer(
            model,
            strength=self.strength_of(vector),
            processor=processor,
            allow_other_model=self.allow_other_model,
            **self.options_of(vector),
        )

    def options_of(self, vector: SteeringVector) -> dict[str, Any]:
        """The keyword arguments for steering by `vector`, the file's."""
        if (written := self.options.get("where")) is None:
            return self.options
        return self.options | {"where": tuple(condition.build(vector) for condition in written)}

    def strength_of(self, vector: SteeringVector | VisionVector) -> float:
        """The strength that was written, or else what was found best for `vector`, the file's."""
        usual = 1.0 if hasattr(vector, "site") else 0.09  # VTI's, in a vision tower
        chosen: float = vector.provenance.get("selection", {}).get("strength", usual)
        return chosen if self.strength is None else self.strength


def parse_steer(text: str, *, allow_other_model: bool = False) -> SteerSpec:
    """Read `FILE`, `FILE:STRENGTH` or `FILE:STRENGTH,layers=10+12,positions=generated,mode=add,keep_norm=true`; a last
    option is `where=cosine>0.1`, see `truthkit.steering.where_spec`.

    Raises:
        ArgumentError: the strength is no number, or an option is unknown or has no value that makes sense.
    """
    path, settings = text, ""
    for ending in FORMATS:
        before, found, after = text.partition(f"{ending}:")
        if found:
            path, settings = before + ending, after
            break
    first, _, rest = settings.partition(",")
    strength = None
    if "=" in first:
        rest = settings
    elif first:
        try:
            strength = float(first)
        except ValueError:
            strength = math.nan
        if not math.isfinite(strength):
            raise ArgumentError(f"{text!r} has the strength {first!r}; expected a finite number, as in FILE:1.5.")
    options: dict[str, Any] = {}
    for name, value in split_options(rest):
        options[name] = _option(text, name, value)
    return SteerSpec(text, path, strength, options, allow_other_model)


def _option(text: str, name: str, value: str) -> Any:
    match name:
        case "layers":
            return parse_layers(value)
        case "positions":
            return parse_positions(value)
        case "mode":
            return check_mode(value)
        case "keep_norm" if value in ("true", "false"):
            return value == "true"
        case "where":
            return parse_where(value)
    close = "" if name in _OPTIONS else did_you_mean(name, _OPTIONS)
    raise ArgumentError(
        f"{text!r} has {name}={value}{close}; the options are {', '.join(_OPTIONS)} (true or false for keep_norm)."
    )
