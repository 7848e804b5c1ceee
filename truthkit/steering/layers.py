"""Which layers to steer, and which to try: read off the held-out scores, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

PLATEAU = 0.01
"""Layers whose AUC is no further than this from the best are taken for equally good [our choice]."""


def middle(layers: Sequence[int]) -> int:
    """The one in the middle; of two, the later."""
    return layers[len(layers) // 2]


def middle_of_best(scores: Mapping[int, float]) -> int:
    """The layer with the highest score; of equal ones the middle of the longest stretch of them (of two, the first)."""
    best, stretches = max(scores.values()), list[list[int]]()
    inside = False
    for layer in sorted(scores):
        if scores[layer] == best:
            if not inside:
                stretches.append([])
            stretches[-1].append(layer)
        inside = scores[layer] == best
    return middle(max(stretches, key=len))


def default_layer(layers: Sequence[int], scores: Mapping[int, float]) -> tuple[int, str]:
    """The layer to steer where none is named, and why."""
    if known := {layer: scores[layer] for layer in layers if layer in scores}:
        return middle_of_best(known), "the best by held-out AUC"
    return middle(layers), "the one in the middle"


def worth_trying(scores: Mapping[int, float], count: int) -> list[int]:
    """At most `count` layers to try: spread evenly over those that score within `PLATEAU` of the best.

    Where there are no more than `count` of these, the `count` best. Without scores, spread over all.
    """
    best = max(scores.values())
    good = [layer for layer in sorted(scores) if scores[layer] >= best - PLATEAU]
    if len(good) <= count:
        return sorted(sorted(scores, key=lambda layer: -scores[layer])[:count])
    return [good[(2 * i + 1) * len(good) // (2 * count)] for i in range(count)]
