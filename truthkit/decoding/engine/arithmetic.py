"""The arithmetic that the methods share: plausibility constraint and choice of the most divergent layer.

All functions take and return float32 (or float64) tensors whose last dimension is the vocabulary.
"""

from __future__ import annotations

import math

import torch

from truthkit.errors import ArgumentError


def check_finite(name: str, value: float) -> float:
    """`value` as a float if it is a finite number.

    Raises:
        ArgumentError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ArgumentError(f"{name} is {value!r}; expected a finite number.")
    return float(value)


def check_count(name: str, value: int) -> int:
    """`value` if it is a whole number, 1 or more.

    Raises:
        ArgumentError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(f"{name} is {value!r}; expected a whole number, 1 or more.")
    return value


def check_whole(name: str, value: int) -> int:
    """`value` if it is a whole number, 0 or more.

    Raises:
        ArgumentError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ArgumentError(f"{name} is {value!r}; expected a whole number, 0 or more.")
    return value


def check_at_least_zero(name: str, value: float) -> float:
    """`value` as a float if it is a finite number, 0 or more.

    Raises:
        ArgumentError: it is not.
    """
    if (checked := check_finite(name, value)) < 0:
        raise ArgumentError(f"{name} is {value!r}; expected 0 or more.")
    return checked


def plausible(scores: torch.Tensor, main: torch.Tensor, beta: float) -> torch.Tensor:
    """Adaptive plausibility constraint: `scores` with −inf wherever `p_main < beta * max p_main`.

    Source: Li et al., *Contrastive Decoding* (arXiv 2210.15097), eq. 2, in the equivalent logit form. A token that the
    main view rules out altogether (−inf) stays so with any beta, whatever infinities its score was made of.

    Args:
        scores: combined scores, shape (..., vocabulary).
        main: the main view's logits or log-probabilities, same shape.
        beta: cut-off in (0, 1], or 0 for no constraint.
    """
    if beta == 0.0:
        return scores.masked_fill(main.isneginf(), -math.inf)
    cutoff = main.amax(dim=-1, keepdim=True) + math.log(beta)
    return scores.masked_fill(main < cutoff, -math.inf)


def jensen_shannon(final: torch.Tensor, exits: torch.Tensor) -> torch.Tensor:
    """Jensen–Shannon divergence in nats between the final distribution and each early exit's.

    Args:
        final: logits of the final layer, shape (..., vocabulary).
        exits: logits of the early exits, shape (layers, ..., vocabulary).

    Returns:
        Divergences of shape (layers, ...).
    """
    return _mixed(final, exits) - 0.5 * _entropy(final.softmax(dim=-1))


def _mixed(final: torch.Tensor, exits: torch.Tensor) -> torch.Tensor:
    """`jensen_shannon` without the final distribution's own term, which is the same for all exits."""
    p, q = final.softmax(dim=-1), exits.softmax(dim=-1)
    return _entropy(torch.lerp(q, p.to(q.dtype).expand_as(q), 0.5)).sub(_entropy(q), alpha=0.5)


def _entropy(p: torch.Tensor) -> torch.Tensor:
    return torch.special.entr(p).sum(dim=-1)  # 0 log 0 is 0 here: scores may hold −inf


def most_divergent(final: torch.Tensor, exits: torch.Tensor) -> torch.Tensor:
    """Which early exit differs most from the final layer, for each row and position on its own.

    Source: Chuang et al., *DoLa* (arXiv 2309.03883), eq. 3. A row's choice never depends on its batch mates, unlike the
    batch mean in transformers 4.

    Args:
        final: shape (batch, positions, vocabulary).
        exits: shape (layers, batch, positions, vocabulary).

    Returns:
        Indices into the first dimension of `exits`, shape (batch, positions), int64.
    """
    return _mixed(final, exits).argmax(dim=0)


def take_layer(exits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`exits[index[b, t], b, t]`: shapes (layers, batch, positions, vocabulary) and (batch, positions)."""
    index = index[None, :, :, None].expand(1, -1, -1, exits.shape[-1])
    return exits.gather(0, index).squeeze(0)
