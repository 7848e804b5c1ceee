"""What a server was started with: requests choose among that, and reach nothing else."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from truthkit.decoding.engine.registry import PROMPT_ONLY
from truthkit.decoding.spec import DecoderSpec, parse_spec
from truthkit.errors import ArgumentError, did_you_mean
from truthkit.serving.fields import number_of

_LONGEST = 2000  # characters of a decoder in writing
_PARTS = 4  # decoders at once
_COUNT = 1000  # of an option that is a number of something
_COUNTS = {
    ("opera", "num_beams"): 16,
    ("opera", "num_attn_candidates"): 16,
    ("contrastive_search", "top_k"): 64,
}
"""Options that multiply the rows of a forward."""


@dataclass(frozen=True)
class Offer:
    """Names and limits.

    Attributes:
        name: of the model.
        decoder: for requests that name none.
        amateurs: names that decoders may contrast with.
        vectors: for each vector's name the strength for requests that say nothing of it.
        takes_images: whether the model does.
        room: tokens of prompt and answer together; None where nothing says so.
        vocabulary: how many token ids there are.
        new_tokens: of an answer, at most.
        rows: answers of one request, at most.
    """

    name: str
    decoder: DecoderSpec
    amateurs: Sequence[str] = ()
    vectors: Mapping[str, float] = field(default_factory=dict)
    takes_images: bool = False
    room: int | None = None
    vocabulary: int = 0
    new_tokens: int = 4096
    rows: int = 128

    def spec(self, text: str | None) -> DecoderSpec:
        """The decoder that a request names; the server's for None.

        Raises:
            ArgumentError: there is none like that, or not for this model, or its amateur is not among those offered.
        """
        if text is None:
            return self.decoder
        if len(text) > _LONGEST:
            raise ArgumentError(f"decoder has {len(text)} characters; shorten it to {_LONGEST}.")
        spec = parse_spec(text)
        self.check(spec)
        _check_size(spec)
        return spec

    def check(self, spec: DecoderSpec) -> None:
        """Raise what `spec` does for a decoder that is read already."""
        if spec.needs_image and not self.takes_images:
            raise ArgumentError(f"decoder {spec.name!r} compares images, and this model takes none; use another one.")
        for part in spec.parts or (spec,):
            chosen = part.options.get("amateur")
            if chosen not in (None, PROMPT_ONLY, *self.amateurs):
                known = ", ".join(map(repr, self.amateurs)) or "none"
                raise ArgumentError(
                    f"decoder {spec.name!r} has the amateur {reprlib.repr(chosen)}; those given by --amateur when the "
                    f"server started are {known}."
                )

    def strengths(self, steer: Any) -> tuple[float, ...]:
        """Of each vector: a number for the only one, or an object from names to numbers; None says nothing of any.

        Raises:
            ArgumentError: there is no such vector, or a strength is no number.
        """
        if steer is None:
            return tuple(self.vectors.values())
        if not self.vectors:
            raise ArgumentError(
                "steer is for the vectors of --steer, and the server was started without; leave it out."
            )
        names = ", ".join(map(repr, self.vectors))
        if not isinstance(steer, dict):
            if len(self.vectors) > 1:
                raise ArgumentError(f"steer is {reprlib.repr(steer)}; expected a strength by name, of {names}.")
            steer = dict.fromkeys(self.vectors, steer)
        for name in steer:
            if name not in self.vectors:
                meant = did_you_mean(name[:100], self.vectors)
                raise ArgumentError(f"steer names {reprlib.repr(name)}{meant}; the server has {names}.")
        asked = {name: number_of(steer, name) for name in steer}
        return tuple(
            usual if asked.get(name) is None else float(asked[name] or 0.0) for name, usual in self.vectors.items()
        )


def _check_size(spec: DecoderSpec) -> None:
    """Raise for a decoder that would take a machine's memory, or its time between two tokens."""
    if len(spec.parts) > _PARTS:
        raise ArgumentError(f"decoder {spec.name[:100]!r} is {len(spec.parts)} decoders at once; expected {_PARTS}.")
    for part in spec.parts or (spec,):
        for name, value in part.options.items():
            most = _COUNTS.get((part.name, name), _COUNT)
            if isinstance(value, int) and name != "seed" and value > most:
                raise ArgumentError(
                    f"option {name!r} of decoder {part.name!r} is {value}; this server takes up to {most}."
                )
