"""What an honest table puts beside a decoder."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Control:
    """A run of the model that shows what a decoder's gain does not come from.

    Attributes:
        name: for folders and tables, as "sampling-cooler".
        decoder: as in `parse_spec`.
        sample: whether tokens are drawn.
        cooler: what the run's temperature is divided by.
    """

    name: str
    decoder: str
    sample: bool = False
    cooler: float = 1.0
