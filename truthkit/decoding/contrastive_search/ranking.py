"""The choice that contrastive search makes among candidates, and the context it compares them with."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import normalize

from truthkit.errors import ArgumentError, ModelError
from truthkit.hf.growing_cache import GrowingTensor


class ContrastiveRanking:
    """Chooses among k candidates, and remembers every token's direction to compare the next ones with.

    For each row the winner is the argmax over its candidates v of

        (1 - alpha) * p(v | x)  -  alpha * max_j cos(h_v, h_xj)

    with p over the full vocabulary, h the hidden states that the output head reads, and j over every earlier token that
    is not padding. Source: Su et al., *A Contrastive Framework for Neural Text Generation* (arXiv 2202.06417), eq. 5.
    Ties go to the more probable candidate. A candidate that the logits processors ruled out (p = 0) never wins.

    Directions are kept in float32 (float64 for a float64 model): `hidden size` numbers a token and row.

    Args:
        alpha: weight of the degeneration penalty, in [0, 1].
    """

    def __init__(self, alpha: float):
        self.alpha = alpha
        self.context: GrowingTensor | None = None

    @property
    def length(self) -> int:
        """How many tokens the context holds."""
        return 0 if self.context is None else self.context.length

    def observe(self, hidden: torch.Tensor) -> None:
        """Append tokens with hidden states of shape (batch, tokens, hidden) to the context."""
        directions = _directions(hidden)
        if self.context is None:
            self.context = GrowingTensor(directions)
        else:
            self.context.append(directions)

    def choose(
        self, hidden: torch.Tensor, probabilities: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Choose one candidate for every row and append it to the context.

        Args:
            hidden: the candidates' hidden states, shape (batch, k, hidden).
            probabilities: the candidates' probabilities, shape (batch, k), float32.
            attention_mask: 0 for padding, shape (batch, tokens of the context or more), or None for no padding.

        Returns:
            Indices of the winners, shape (batch,), int64, where `hidden` is.
        """
        assert self.context is not None
        candidates, context = _directions(hidden), self.context.view
        similarity = candidates @ context.transpose(1, 2)
        if attention_mask is not None:
            padding = attention_mask[:, None, : self.length].to(similarity.device) == 0
            similarity.masked_fill_(padding, -math.inf)
        probabilities = probabilities.to(similarity.device)
        scores = (1.0 - self.alpha) * probabilities - self.alpha * similarity.amax(dim=-1)
        winner = scores.masked_fill_(probabilities == 0, -math.inf).argmax(dim=-1)
        self.context.append(candidates[torch.arange(len(winner), device=winner.device), winner][:, None])
        return winner


def top_candidates(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The `k` most probable tokens of every row and their probabilities over the full vocabulary.

    Args:
        scores: logits after the logits processors, shape (batch, vocabulary), float32.
        k: how many; capped at the vocabulary size.

    Returns:
        Probabilities and token ids, both of shape (batch, k), in descending order; and which rows are no distribution,
        shape (batch,), bool, for `refuse_broken` where one waits for the device anyway.
    """
    best, candidates = scores.topk(min(k, scores.shape[-1]), dim=-1)
    probabilities = (best - scores.logsumexp(dim=-1, keepdim=True)).exp()
    return probabilities, candidates, probabilities.isnan().any(dim=-1)


def refuse_broken(broken: torch.Tensor) -> None:
    """Raises:
    ModelError: the scores of the rows `broken`, of which there are some, hold NaN or +inf, or nothing but -inf.
    """
    raise ModelError(
        f"the scores of batch row {int(broken.nonzero()[0])} are NaN or infinite, or rule out every token; check "
        "the weights, the dtype (float16 overflows: try bfloat16 or float32) and the logits processors."
    )


def check_settings(penalty_alpha: float, top_k: int) -> tuple[float, int]:
    """The settings, if they can work.

    Raises:
        ArgumentError: `penalty_alpha` is not a number in [0, 1], or `top_k` is not a positive integer.
    """
    if isinstance(penalty_alpha, bool) or not isinstance(penalty_alpha, int | float) or not 0 <= penalty_alpha <= 1:
        raise ArgumentError(f"penalty_alpha is {penalty_alpha!r}; expected a number from 0 (greedy) to 1, usually 0.6.")
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise ArgumentError(f"top_k is {top_k!r}; expected a positive integer (1 is greedy), usually 4.")
    return float(penalty_alpha), top_k


def _directions(hidden: torch.Tensor) -> torch.Tensor:
    return normalize(hidden if hidden.dtype == torch.float64 else hidden.float(), dim=-1)
