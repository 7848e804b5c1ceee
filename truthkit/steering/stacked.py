"""Vectors of several items, for steering one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from truthkit.errors import ArgumentError
from truthkit.steering.vector import SteeringVector


def stacked(vectors: Sequence[SteeringVector | None]) -> dict[int, torch.Tensor]:
    """One vector per item of a batch, for `Steering`: layer to (items, features); None steers nothing.

    Raises:
        ArgumentError: all are None, or they live in different spaces.
    """
    given = [vector for vector in vectors if vector is not None]
    if not given:
        raise ArgumentError("no vector was given.")
    first = given[0]
    for vector in given:
        if not first.shares_space(vector):
            raise ArgumentError(f"{first!r} and {vector!r} live in different spaces; they cannot steer one batch.")
    zero = torch.zeros(first.features)
    layers = sorted({layer for vector in given for layer in vector})
    return {
        layer: torch.stack([zero if vector is None else vector.directions.get(layer, zero) for vector in vectors])
        for layer in layers
    }
