"""REFLEX's adaptive choice: layer, sign and strength, by the gain in P(gold verdict) on held-out examples.

Each trial is one layer and one signed strength. Its gain on an example is P(gold | steered) − P(gold | unsteered), both
normalised over the labels; the trial with the largest mean gain is taken. The examples are training examples that the
vector was not made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from truthkit.activations.positions import Positions, describe_positions
from truthkit.errors import ArgumentError
from truthkit.factcheck.guide import Guide
from truthkit.factcheck.verdicts import VerdictScorer
from truthkit.steering.vector import SteeringVector
from truthkit.text.tokens import ChatOrText

STRENGTHS = (-8.0, -4.0, -2.0, -1.0, 1.0, 2.0, 4.0, 8.0)
"""Both directions; the vectors' own length is the unit [ours]."""


UNIT = "probability of the gold label"
"""What gains are of, in records and vectors' headers."""


@dataclass(frozen=True)
class Gains:
    """The trials of one vector.

    Attributes:
        layers, strengths: what was tried.
        unsteered: P(gold) of each example before; (examples,).
        steered: P(gold) under each trial; (layers, strengths, examples).
        weights: how much each example counts; they sum to 1.
        guide: how the vector was applied, but for layer and strength.
    """

    layers: tuple[int, ...]
    strengths: tuple[float, ...]
    unsteered: torch.Tensor
    steered: torch.Tensor
    weights: torch.Tensor
    guide: Guide

    @property
    def mean(self) -> torch.Tensor:
        """Mean gain of every trial; (layers, strengths)."""
        return (self.steered - self.unsteered) @ self.weights

    @property
    def error(self) -> torch.Tensor:
        """Standard error of every mean gain; (layers, strengths)."""
        gains = self.steered - self.unsteered
        return ((gains - self.mean[..., None]) ** 2 @ self.weights**2).sqrt()

    def by_layer(self) -> dict[int, tuple[float, float, float]]:
        """Each layer's best strength, its mean gain, and the gain's standard error."""
        best = self.mean.argmax(dim=1).tolist()
        return {
            layer: (self.strengths[at], float(self.mean[row, at]), float(self.error[row, at]))
            for row, (layer, at) in enumerate(zip(self.layers, best, strict=True))
        }

    def choose(self, *, penalty: float = 0.0, layers: int = 1) -> Guide:
        """The trial with the largest mean gain, as a guide; strength 0 where no trial gains anything.

        Args:
            penalty: so many standard errors are taken off every mean first. 0 is the paper's rule; above it, a trial
                must not owe its place to a few examples. Ours.
            layers: how many layers to steer: the best ones at the chosen strength, which they share in equal parts.
                Ours.
        """
        if not 1 <= layers <= len(self.layers):
            raise ArgumentError(f"layers is {layers}; expected 1 to {len(self.layers)}, as many as were tried.")
        worth = self.mean - penalty * self.error
        row, column = divmod(int(worth.argmax()), len(self.strengths))
        strength = self.strengths[column] if float(worth[row, column]) > 0 else 0.0
        rows = worth[:, column].topk(layers).indices.tolist()
        selection = {
            "layer": self.layers[row],
            "strength": strength / layers,
            "gain": round(float(self.mean[row, column]), 6),
            "standard_error": round(float(self.error[row, column]), 6),
            "unit": UNIT,
            "penalty": penalty,
            "examples": len(self.unsteered),
            "trials": self.as_dict()["trials"],
        }
        vector = self.guide.vector.at(sorted(self.layers[r] for r in rows))
        vector = replace(vector, provenance={**vector.provenance, "selection": selection})
        return replace(self.guide, vector=vector, strength=strength / layers)

    def as_dict(self) -> dict[str, Any]:
        """All mean gains with their standard errors, for a record."""
        trials = [
            {"layer": layer, "strength": strength, "gain": round(gain, 6), "standard_error": round(error, 6)}
            for layer, gains, errors in zip(self.layers, self.mean.tolist(), self.error.tolist(), strict=True)
            for strength, gain, error in zip(self.strengths, gains, errors, strict=True)
        ]
        return {
            "positions": describe_positions(self.guide.positions),
            "mode": self.guide.mode,
            "unit": UNIT,
            "examples": len(self.unsteered),
            "unsteered": round(float(self.unsteered @ self.weights), 6),
            "trials": trials,
        }


def measure_gains(
    scorer: VerdictScorer,
    prompts: Sequence[ChatOrText],
    gold: Sequence[str],
    vector: SteeringVector,
    *,
    layers: Sequence[int] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    positions: Positions = "generated",
    mode: str = "add",
    guides: Sequence[Guide] = (),
    balanced: bool = False,
    progress: bool = False,
) -> Gains:
    """Try a vector's layers and strengths on held-out examples.

    Args:
        scorer: of the model to guide: the one that the vector is from, or another one.
        prompts: what the examples ask.
        gold: their gold verdicts.
        vector: the vector, of all layers.
        layers: the layers to try; None is all that the vector has.
        strengths: signed strengths to try at each layer; ours.
        positions: as in `Guide`.
        mode: as in `Guide`.
        guides: steering that stays on in all trials and before: the style, while the substance is chosen.
        balanced: count every class alike, as macro-F1 does, instead of every example. Ours.
        progress: show a progress bar.

    Raises:
        ArgumentError: an unknown label, lists that differ in length, or nothing to try.
    """
    if len(gold) != len(prompts):
        raise ArgumentError(f"gold has {len(gold)} labels for {len(prompts)} prompts; give one for each.")
    if unknown := [label for label in gold if label not in scorer.labels]:
        raise ArgumentError(f"gold has the label {unknown[0]!r}; expected one of {', '.join(scorer.labels)}.")
    tried = tuple(vector.layers if layers is None else map(vector.number, layers))
    if not tried or not len(strengths):
        raise ArgumentError("layers or strengths is empty; name at least one of each to try.")
    right = torch.tensor([scorer.labels.index(label) for label in gold])
    unsteered = _of_gold(scorer.scores(prompts, guides=guides), right)
    scores = scorer.sweep(
        prompts,
        vector,
        layers=tried,
        strengths=strengths,
        positions=positions,
        mode=mode,
        guides=guides,
        progress=progress,
    )
    counts = torch.tensor([gold.count(label) if balanced else 1 for label in gold], dtype=torch.float64)
    weights = 1 / counts / (1 / counts).sum()
    guide = Guide(vector, 0.0, positions, mode)
    return Gains(tried, tuple(map(float, strengths)), unsteered, _of_gold(scores, right), weights, guide)


def _of_gold(scores: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    probabilities = scores.softmax(dim=-1)
    return probabilities.gather(-1, right.expand(*scores.shape[:-1])[..., None])[..., 0]
