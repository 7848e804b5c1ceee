"""A vector together with how it is used: layers, strength with its sign, tokens. What REFLEX chooses, and applies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from truthkit.activations.positions import Positions, describe_positions
from truthkit.errors import ArgumentError
from truthkit.steering.formats import read_vector
from truthkit.steering.names import check_mode
from truthkit.steering.spec import parse_positions
from truthkit.steering.steer import Steering
from truthkit.steering.vector import SteeringVector


@dataclass(frozen=True)
class Guide:
    """Guided inference by one vector: every layer that it has is steered.

    Attributes:
        vector: the vector, with the layers to steer only.
        strength: its coefficient, sign included.
        positions: which tokens: "prompt", "generated" (the answer, a lead such as "Verdict:" included) or "all" for
            both; the choice, and the default, are ours.
        mode: "add", or "project_out" to remove what lies along the vector; see `truthkit.steering.edits`.
    """

    vector: SteeringVector
    strength: float = 1.0
    positions: Positions = "generated"
    mode: str = "add"

    def __post_init__(self) -> None:
        check_mode(self.mode)

    def steering(self, model: Any, processor: Any = None) -> Steering:
        """The steering for `model`, which may be another one with the same activations' space: that is a use of it."""
        return self.vector.steer(
            model,
            layers="all",
            strength=self.strength,
            positions=self.positions,
            mode=self.mode,
            processor=processor,
            allow_other_model=True,
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the vector's file; its provenance holds the rest, as `truthkit generate --steer` reads it."""
        selection = {
            **self.vector.provenance.get("selection", {}),
            "strength": self.strength,
            "positions": describe_positions(self.positions),
            "mode": self.mode,
        }
        replace(self.vector, provenance={**self.vector.provenance, "selection": selection}).save(path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Guide:
        """Read what `save` wrote, or any vector file with a chosen strength.

        Raises:
            ArgumentError, NotAvailableError: the file is no vector, or holds several layers and no choice.
        """
        return as_guide(read_vector(path))


def as_guide(value: Any) -> Guide:
    """A `Guide` from a guide, or from a vector that says in its provenance what was chosen, or has one layer.

    Raises:
        ArgumentError: it is something else, or a vector of several layers without a choice.
    """
    if isinstance(value, Guide):
        return value
    if not isinstance(value, SteeringVector):
        raise ArgumentError(f"vectors holds a {type(value).__name__}; expected a SteeringVector or a Guide.")
    chosen = value.provenance.get("selection", {})
    if "strength" not in chosen and len(value) > 1:
        raise ArgumentError(
            f"{value!r} does not say which layer to steer and how strongly; pass Guide(vector.at(layer), strength), or "
            "a vector that REFLEX or `truthkit extract --select` chose these for."
        )
    return Guide(
        value,
        float(chosen.get("strength", 1.0)),
        parse_positions(chosen.get("positions", "generated")),
        chosen.get("mode", "add"),
    )


@contextmanager
def guided(model: Any, guides: Sequence[Guide], processor: Any = None) -> Iterator[list[Steering]]:
    """All of `guides` at work on `model`, in their order."""
    with ExitStack() as stack:
        yield [stack.enter_context(guide.steering(model, processor)) for guide in guides]
