"""The decoders' formulas on rows of logits, as in truthkit; it needs another transformers, and is not imported here.

All take and return float32 tensors whose last dimension is the vocabulary.
"""

from __future__ import annotations

import math

import torch


def plausible(scores: torch.Tensor, main: torch.Tensor, beta: float) -> torch.Tensor:
    """`scores` with −inf wherever `p_main < beta * max p_main` (Li et al., arXiv 2210.15097, eq. 2).

    Args:
        scores: shape (rows, vocabulary).
        main: the main view's logits, same shape.
        beta: cut-off in (0, 1]; 0 rules out only what the main view itself does.
    """
    if beta == 0.0:
        return scores.masked_fill(main.isneginf(), -math.inf)
    return scores.masked_fill(main < main.amax(dim=-1, keepdim=True) + math.log(beta), -math.inf)


def cad(main: torch.Tensor, without: torch.Tensor, *, alpha: float, beta: float) -> torch.Tensor:
    """`(1 + alpha) · l(context, x) − alpha · l(x)` (Shi et al., arXiv 2305.14739), shape (rows, vocabulary)."""
    return plausible((1.0 + alpha) * main - alpha * without, main, beta)


def icd(main: torch.Tensor, amateur: torch.Tensor, *, lam: float, beta: float) -> torch.Tensor:
    """`log p − lam · log p_amateur` (Zhang et al., arXiv 2312.15710), shape (rows, vocabulary)."""
    return plausible(main.log_softmax(dim=-1) - lam * amateur.log_softmax(dim=-1), main, beta)


def dola(main: torch.Tensor, exits: torch.Tensor, *, beta: float) -> torch.Tensor:
    """`log p_N − log p_M`, M the exit of the largest Jensen–Shannon divergence (Chuang et al., arXiv 2309.03883).

    Args:
        main: the last layer's logits, shape (rows, vocabulary).
        exits: the early exits', shape (layers, rows, vocabulary).
        beta: see `plausible`.
    """
    entropy = torch.special.entr
    early = exits.log_softmax(dim=-1)
    p, q = main.softmax(dim=-1), early.exp()
    divergence = entropy(torch.lerp(q, p.expand_as(q), 0.5)).sum(dim=-1) - 0.5 * entropy(q).sum(dim=-1)
    chosen = divergence.argmax(dim=0)
    premature = early[chosen, torch.arange(len(main), device=main.device)]
    return plausible(main.log_softmax(dim=-1) - premature, main, beta)


def sled(
    main: torch.Tensor,
    exits: torch.Tensor,
    *,
    evolution_rate: float,
    evolution_scale: int,
    steps: int,
    evolution_lower_bound: float,
) -> torch.Tensor:
    """Logits that evolve, on the likeliest tokens, towards what layers head for (Zhang et al., arXiv 2411.02433).

    Args:
        main: the last layer's logits, shape (rows, vocabulary).
        exits: the early exits', shape (layers, rows, vocabulary).
        evolution_rate: of the first step; it falls to nothing along the others.
        evolution_scale: how many tokens are evolved and kept.
        steps: how many steps.
        evolution_lower_bound: the score of all other tokens that are possible.
    """
    values, tokens = main.topk(min(evolution_scale, main.shape[-1]), dim=-1)
    at_once = 1 if main.device.type == "cpu" else len(exits)  # one exit stays in a CPU's cache: half the time
    votes = torch.cat([_alignment(main, some, tokens) for some in exits.split(at_once)])
    votes = votes.masked_fill(values.isneginf(), 0.0).square().sum(dim=0)
    votes = votes / votes.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(votes.dtype).tiny)
    target = torch.zeros_like(main).scatter(-1, tokens, votes)
    evolved = main
    for step in range(steps):
        rate = evolution_rate * (1 - step / steps)
        evolved = evolved - rate * (evolved.softmax(dim=-1) - target)
    floor = torch.full_like(evolved, evolution_lower_bound)
    return plausible(floor.scatter(-1, tokens, evolved.gather(-1, tokens)), main, 0.0)


def _alignment(main: torch.Tensor, exits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """`max(0, cos(p_j − e_i, l_j − l))` for exits j and tokens i, shape (layers, rows, tokens); −inf takes no part.

    An exit without norm is often all but certain of one token a, and p_j − e_a would be rounding alone. With r the
    distribution among the others, p_j = (1 − ε) e_a + ε r: the direction of p_j − e_a is that of r − e_a.
    """
    tokens = tokens.expand(len(exits), *tokens.shape)
    change = (exits - main).masked_fill_(main.isneginf(), 0.0)
    top, first = exits.max(dim=-1, keepdim=True)
    others = exits.scatter(-1, first, -math.inf)
    second = others.amax(dim=-1, keepdim=True)
    r = others.sub_(second).exp_()
    total = r.sum(dim=-1, keepdim=True)
    epsilon = (second + total.log() - top).sigmoid()
    along, square = _dot(r, change) / total, _dot(r, r) / total.square()
    p_i, change_i = epsilon * r.gather(-1, tokens) / total, change.gather(-1, tokens)
    is_first = tokens == first
    apart_dot = (1 - epsilon) * change.gather(-1, first) + epsilon * along - change_i
    apart_square = (1 - epsilon).square() + epsilon.square() * square + 1 - 2 * p_i
    dot = torch.where(is_first, along - change_i, apart_dot)
    length = torch.where(is_first, square + 1, apart_square).sqrt() * _dot(change, change).sqrt()
    return (dot / length.clamp_min(1e-8)).clamp_min(0)


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vecdot(a, b)[..., None]


def deco(main: torch.Tensor, exits: torch.Tensor, *, alpha: float, top_p: float, top_k: int) -> torch.Tensor:
    """`l + alpha · p_j(v) · l_j` on the likely tokens, of the exit j that is surest of one (arXiv 2410.11779).

    Args:
        main: the last layer's logits, shape (rows, vocabulary).
        exits: the early exits', shape (layers, rows, vocabulary).
        alpha: strength of the correction.
        top_p: share of the probability that the likely tokens hold at least; all others are ruled out; 1 for all.
        top_k: the most likely tokens that there are; 0 for all.
    """
    values, tokens = main.topk(min(top_k or main.shape[-1], main.shape[-1]), dim=-1)
    share = (values - main.logsumexp(dim=-1, keepdim=True)).exp()
    held = share.cumsum(dim=-1) - share if top_p < 1 else torch.zeros_like(share)
    kept = (held < top_p) & ~values.isneginf()
    there = exits.gather(-1, tokens.expand(len(exits), *tokens.shape))
    surest = (there - exits.logsumexp(dim=-1, keepdim=True)).exp().where(kept, 0.0).amax(dim=-1)
    confidence, layer = surest.max(dim=0)
    scores = main + alpha * confidence[:, None] * exits[layer, torch.arange(len(main), device=main.device)]
    allowed = torch.zeros_like(main, dtype=torch.bool).scatter(-1, tokens, kept)
    return scores.masked_fill(~allowed, -math.inf)
