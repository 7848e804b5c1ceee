"""SLED, self logits evolution decoding (Zhang et al., arXiv 2411.02433)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from truthkit.decoding.engine.arithmetic import check_at_least_zero, check_count, check_finite
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.early_exits import named_layers
from truthkit.decoding.engine.options import Layers
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.view import ViewLogits
from truthkit.hf.wrapping import plain_model

_ROWS = 4
"""In a cache, with what is made of them."""


class SLED(Decoder):
    """Let the final logits evolve towards what the layers below were heading for.

        C    = the `evolution_scale` likeliest tokens of p
        m_ji = max(0, cos(p_j − e_i, l_j − l))²  for each early exit j and token i in C;   q_i = Σ_j m_ji / Σ_j Σ_i m_ji
        z_0  = l,   z ← z − evolution_rate · (1 − t / steps) · (softmax(z) − q)  for t = 0 … steps − 1
        s    = z_steps on C, `evolution_lower_bound` elsewhere

    `e_i` is the distribution that has all on token i; `q` is 0 outside C.

    Source: the authors' released code, per row and position. There `steps` is 10 where choices are scored and 1 where
    text is generated; the paper describes several, so 10 is the default. Early exits come without the final norm. The
    embeddings, which the code counts among the early layers, are no block and left out.

    Args:
        model: the model, plain or PEFT-wrapped.
        processor: not used; there so that all decoders are called alike.
        layers: early exits: layer numbers, "low" or "high" as in `DoLa`, or "all" blocks but the last, as published.
        evolution_rate: of the first step; 2.5 in the TruthfulQA runs. 0 leaves the model's own logits on C.
        evolution_scale: how many tokens are evolved and kept; 50 to 100 in the TruthfulQA runs.
        steps: how many steps.
        evolution_lower_bound: the score of all other tokens.
        norm: pass early exits through the model's final norm.

    Raises:
        ArgumentError: a layer or an option is out of range.
        ModelError: early exits cannot be read from this model.

    Example:
        >>> with tk.SLED(model, layers="high"):
        ...     model.generate(**inputs, max_new_tokens=64)
    """

    name: ClassVar[str] = "sled"
    strengths: ClassVar[frozenset[str]] = frozenset(
        {"evolution_rate", "evolution_scale", "steps", "evolution_lower_bound"}
    )

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        layers: Layers = "all",
        evolution_rate: float = 2.0,
        evolution_scale: int = 10,
        steps: int = 10,
        evolution_lower_bound: float = -100.0,
        norm: bool = False,
    ):
        self.evolution_rate = check_at_least_zero("evolution_rate", evolution_rate)
        self.evolution_scale, self.steps = check_count("evolution_scale", evolution_scale), check_count("steps", steps)
        self.evolution_lower_bound = check_finite("evolution_lower_bound", evolution_lower_bound)
        super().__init__(model, layers=named_layers(plain_model(model), layers), norm=norm)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        assert main.exits is not None
        values, tokens = main.logits.topk(min(self.evolution_scale, main.logits.shape[-1]), dim=-1)
        align = _align_in_cache if main.logits.device.type == "cpu" else _alignment
        votes = align(main.logits, main.exits, tokens).masked_fill(values.isneginf(), 0.0).square().sum(dim=0)
        votes = votes / votes.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(votes.dtype).tiny)
        target = torch.zeros_like(main.logits).scatter(-1, tokens, votes)
        evolved = main.logits
        for step in range(self.steps):
            rate = self.evolution_rate * (1 - step / self.steps)
            evolved = evolved - rate * (evolved.softmax(dim=-1) - target)
        floor = torch.full_like(evolved, self.evolution_lower_bound)
        return floor.scatter(-1, tokens, evolved.gather(-1, tokens))


def _align_in_cache(final: torch.Tensor, exits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """`_alignment` of few rows of one exit at a time, which a CPU's cache holds: a third of the time."""
    rows = final.flatten(0, -2).split(_ROWS), tokens.flatten(0, -2).split(_ROWS)
    aligned = [
        torch.cat([_alignment(f, e[None], t)[0] for f, t, e in zip(*rows, one.split(_ROWS), strict=True)])
        for one in exits.flatten(1, -2)
    ]
    return torch.stack(aligned).unflatten(1, final.shape[:-1])


def _alignment(final: torch.Tensor, exits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """`max(0, cos(p_j − e_i, l_j − l))`, without a vector per token.

    With a the likeliest token of p_j and r its distribution among all others, p_j = (1 − ε) e_a + ε r. Unnormalised
    exits are often all but certain, so 1 − p_j(a) would be rounding alone; but p_j − e_a points where r − e_a does.

    Args:
        final: shape (…, vocabulary); tokens of −inf take no part.
        exits: shape (layers, …, vocabulary).
        tokens: shape (…, scale).

    Returns:
        Shape (layers, …, scale).
    """
    tokens = tokens.expand(len(exits), *tokens.shape)
    change = (exits - final).masked_fill_(final.isneginf(), 0.0)
    top, first = exits.max(dim=-1, keepdim=True)
    others = exits.scatter(-1, first, -torch.inf)
    second = others.amax(dim=-1, keepdim=True)
    r = others.sub_(second).exp_()
    total = r.sum(dim=-1, keepdim=True)
    epsilon = (second + total.log() - top).sigmoid()
    along, square = _dot(r, change) / total, _dot(r, r) / total.square()
    p_i, change_i = epsilon * r.gather(-1, tokens) / total, change.gather(-1, tokens)
    change_a, is_first = change.gather(-1, first), tokens == first
    dot = torch.where(is_first, along - change_i, (1 - epsilon) * change_a + epsilon * along - change_i)
    apart = (1 - epsilon).square() + epsilon.square() * square + 1 - 2 * p_i
    length = torch.where(is_first, square + 1, apart).sqrt() * _dot(change, change).sqrt()
    return (dot / length.clamp_min(1e-8)).clamp_min(0)


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Over the last dimension, which stays."""
    return torch.linalg.vecdot(a, b)[..., None]


class SLEDLogitsProcessor(DecoderLogitsProcessor, decoder=SLED):
    """`SLED` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `SLED`."""
