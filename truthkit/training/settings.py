"""How an adapter is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from truthkit.errors import ArgumentError


@dataclass(frozen=True)
class TrainingSettings:
    """How to train. Every default is ours: neither LOL's, ICD's nor REFLEX's settings are public for small models.

    Attributes:
        rank: of the LoRA update, on all linear layers of the decoder blocks.
        alpha: its scale, alpha / rank; None is twice the rank.
        dropout: on the update's input.
        lr: peak learning rate of AdamW, after a linear warm-up and before a linear decay to 0.
        warmup: share of the steps that warm up.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        epochs: passes over the data; parts count.
        steps: so many steps instead.
        token_budget: tokens of a step, padding included.
        accumulate: pieces in which a process runs its part of a step, to save memory. On a CPU they are cut up
            further, to about 256 tokens; the loss is the same.
        max_length: tokens of an example; longer prompts are cut, longer answers an error. None is the model's
            context, at most 1024.
        skip_long: leave out examples whose answer does not fit, instead.
        seed: of the order of the data, of dropout and of the first weights.
        gradient_checkpointing: recompute activations in the backward pass, to save memory.
        contrastive_margin: the margin ρ of SimCTG's contrastive loss, which is added to the cross-entropy; 0.5 in its
            paper. None adds nothing.
    """

    rank: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    lr: float = 5e-4
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    epochs: float = 1.0
    steps: int | None = None
    token_budget: int = 1024
    accumulate: int = 1
    max_length: int | None = None
    skip_long: bool = False
    seed: int = 0
    gradient_checkpointing: bool = False
    contrastive_margin: float | None = None

    def __post_init__(self) -> None:
        least = {"rank": 1, "token_budget": 1, "accumulate": 1, "seed": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ArgumentError(f"{name} is {getattr(self, name)}; expected at least {low}.")
        for name in ("lr", "clip", "epochs"):
            if not 0 < getattr(self, name) < math.inf:
                raise ArgumentError(f"{name} is {getattr(self, name)}; expected a positive number.")
        for name in ("warmup", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ArgumentError(f"{name} is {getattr(self, name)}; expected 0 or more and less than 1.")
        if self.contrastive_margin is not None and not -1 <= self.contrastive_margin <= 1:
            raise ArgumentError(f"contrastive_margin is {self.contrastive_margin}; expected -1 to 1, as cosines are.")
        if self.steps is not None and self.steps < 1:
            raise ArgumentError(f"steps is {self.steps}; expected at least 1.")
