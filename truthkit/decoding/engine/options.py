"""Types of decoders' options that say which values make sense, for signatures. Nothing here imports torch.

A check in `Annotated` is the engine's own: command lines call it on what was typed, before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from truthkit.errors import ArgumentError


def check_beta(beta: float) -> float:
    """`beta` if it is in [0, 1]; 0 turns the constraint off.

    Raises:
        ArgumentError: it is not.
    """
    if not 0.0 <= beta <= 1.0:
        raise ArgumentError(
            f"beta is {beta!r}; the plausibility constraint keeps tokens with p >= beta * max p, so beta must be "
            "in (0, 1], or 0 to turn it off."
        )
    return float(beta)


Beta: TypeAlias = Annotated[float, check_beta]
"""The cut-off of the plausibility constraint, in (0, 1], or 0 for none."""

Layers: TypeAlias = Literal["low", "high", "all"] | Sequence[int]
"""Layer numbers, every second block of the lower or the upper half, or all blocks but the last."""
