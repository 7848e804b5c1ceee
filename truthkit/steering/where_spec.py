"""Conditions of steering written as text, `cosine>0.1` or `mean(cond.safetensors)@7>0.03+entropy>1`; without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from truthkit.errors import ArgumentError

if TYPE_CHECKING:
    from truthkit.steering.conditions import Condition
    from truthkit.steering.vector import SteeringVector

_KINDS = {"cosine": "token", "last": "last", "mean": "mean", "entropy": None}
_PART = re.compile(r"\s*(\w+)\s*(?:\(([^()]+)\))?\s*(?:@\s*(-?\d{1,5}))?\s*([<>])\s*([^<>+]+?)\s*")


@dataclass(frozen=True)
class WrittenCondition:
    """One condition as it was written.

    Attributes:
        kind: "cosine" of each token's state, or of the prompt's "last" or "mean" one, or "entropy".
        file: of a cosine: the vector file with the direction; None is the steering's own vector.
        layer: of a cosine: where it is read.
        side: ">" or "<".
        value: the threshold.
    """

    kind: str
    file: str | None
    layer: int | None
    side: str
    value: float

    def build(self, vector: SteeringVector) -> Condition:
        """The condition, for steering by `vector`.

        Raises:
            ArgumentError, NotAvailableError: a threshold out of range, or no vector in the file.
        """
        from truthkit.steering.conditions import Cosine, Entropy
        from truthkit.steering.formats import read_vector

        above, below = (self.value, None) if self.side == ">" else (None, self.value)
        if self.kind == "entropy":
            return Entropy(above=above, below=below)
        direction = vector if self.file is None else read_vector(self.file)
        of = cast('Literal["token", "last", "mean"]', _KINDS[self.kind])
        return Cosine(direction, above=above, below=below, of=of, layer=self.layer)


def parse_where(text: str) -> tuple[WrittenCondition, ...]:
    """Conditions joined by `+`: `cosine`, `last`, `mean` or `entropy`, then `>` or `<` and a number. Behind the first
    three may stand `(FILE)`, the vector file with the direction, and `@LAYER`, where the state is read.

    Raises:
        ArgumentError: it is none of these.
    """
    found = []
    for part in re.split(r"(?<![eE])\+", text):
        match = _PART.fullmatch(part)
        kind, file, layer, side, number = match.groups() if match else ("", None, None, "", "")
        try:
            value = float(number)
        except ValueError:
            value = None
        if kind not in _KINDS or value is None or (kind == "entropy" and (file or layer)):
            raise ArgumentError(
                f"where is {text!r}; expected for example cosine>0.1, mean(FILE)@7>0.03 or entropy>1, joined by +; "
                f"the conditions are {', '.join(_KINDS)}."
            )
        found.append(WrittenCondition(kind, file, None if layer is None else int(layer), side, value))
    return tuple(found)
