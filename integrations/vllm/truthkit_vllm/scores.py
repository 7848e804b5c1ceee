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
