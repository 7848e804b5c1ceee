"""What an auxiliary view changes, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from truthkit.decoding.engine.prompt_views import PromptRewrite
from truthkit.decoding.engine.source import ImageRewrite


@dataclass(frozen=True)
class View:
    """What one auxiliary view changes; everything left at None is as in the main view.

    Attributes:
        name: what people call it, in explanations.
        prompt: rewrites the prompt's token ids.
        adapter: a LoRA adapter that is on in this view: a name loaded in the model, a PEFT folder or a hub id.
        model: another model, with its own forward and cache; or the same one, to run apart.
        exits: whether the decoder's early exits are read in this view too.
        images: how this view's images come from the main ones.
    """

    name: str
    prompt: PromptRewrite | None = None
    adapter: str | None = None
    model: Any | None = None
    exits: bool = False
    images: ImageRewrite | None = None


@dataclass(frozen=True)
class ViewLogits:
    """One view's next-token logits in float32 (float64 for a float64 model).

    Attributes:
        logits: shape (batch, positions, vocabulary).
        exits: early exits, shape (layers, batch, positions, vocabulary); None where the view reads none.
        step: how many tokens were generated before the first of the positions; 0 while the prompt is read. In a
            compiled step a tensor of one int64, so that no code is made anew for every token.
        prompt_entropies: in the main view, for each of the decoder's `prompt_exits` and every token v: the entropy, in
            nats, of the softmax over the prompt's positions of the exits' logits for v. Shape (prompt exits, batch,
            vocabulary), without gradient.
    """

    logits: torch.Tensor
    exits: torch.Tensor | None = None
    step: int | torch.Tensor = 0
    prompt_entropies: torch.Tensor | None = None

    def normalise(self) -> None:
        """Make log-probabilities of logits and exits, in place."""
        for logits in (self.logits, *(() if self.exits is None else self.exits)):
            logits.sub_(logits.logsumexp(dim=-1, keepdim=True))

    def to(self, device: torch.device) -> ViewLogits:
        """The same on `device`."""
        exits, entropies = (None if some is None else some.to(device) for some in (self.exits, self.prompt_entropies))
        return ViewLogits(self.logits.to(device), exits, self.step, entropies)
