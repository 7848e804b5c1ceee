"""What an auxiliary view changes, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from truthkit.decoding.engine.prompt_views import PromptRewrite
from truthkit.decoding.engine.source import ImageRewrite


@dataclass(frozen=True)
class AttentionEdit:
    """How a view looks at its images otherwise than the main one.

    It is about the *asked* queries: the prompt's last token and all after it; in forwards outside of `generate` those
    that `logits_to_keep` names, where it is given.

    Attributes:
        layers: the blocks in which it acts, by number.
        scores: makes other attention scores of those before mask and softmax, shape (rows, heads, asked queries, keys);
            it is given them and which keys are image tokens, bool, shape (rows, 1, 1, keys).
        hidden: names the keys that cannot be seen, bool, shape (rows, asked queries, keys), given the weights of block
            `seen_at`, shape (rows, heads, asked queries, keys), and the image tokens, shape (rows, 1, keys). Queries
            before the first asked one see as that one does.
        seen_at: that block, which comes before `layers`.
    """

    layers: tuple[int, ...]
    scores: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    hidden: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    seen_at: int | None = None


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
        attention: how it looks at them.
    """

    name: str
    prompt: PromptRewrite | None = None
    adapter: str | None = None
    model: Any | None = None
    exits: bool = False
    images: ImageRewrite | None = None
    attention: tuple[AttentionEdit, ...] = ()


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
