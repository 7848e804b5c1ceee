"""Drawing tokens, each row at its own temperature, from its own nucleus, by its own random numbers."""

from __future__ import annotations

import torch

_MOST = 1024
"""Tokens in which a nucleus is looked for before all are sorted."""


def drawn(scores: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """A token for each row, int64: the first whose cumulative probability reaches the row's uniform number.

    One number per token is all the chance there is, so a row's draws do not depend on those of others.

    Args:
        scores: logits, shape (rows, vocabulary).
        temperature: what divides them, above 0; (rows,), as the next two, on the device of `scores`.
        top_p: the mass of the most probable tokens that are kept, in (0, 1]; tokens as probable as the last one stay.
        uniform: numbers in (0, 1].
    """
    p = (scores.float() / temperature[:, None]).softmax(dim=-1)
    if bool((top_p < 1).any()):
        p = _nucleus(p, top_p[:, None])
    precise = torch.float32 if p.device.type == "mps" else torch.float64
    reached = p.cumsum(dim=-1, dtype=precise)
    wanted = uniform[:, None].to(precise) * reached[:, -1:]
    return torch.searchsorted(reached, wanted)[:, 0].clamp(max=p.shape[-1] - 1)


def _nucleus(p: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """`p` with 0 for what is less probable than the last token of the nucleus."""
    top = p.topk(min(_MOST, p.shape[-1]), dim=-1).values
    if bool(((top.sum(dim=-1, keepdim=True) < top_p) & (top_p < 1)).any()):
        top = p.sort(dim=-1, descending=True).values
    before = top.cumsum(dim=-1) - top
    last = (before < top_p).sum(dim=-1, keepdim=True) - 1
    return p.masked_fill((p < top.gather(-1, last)) & (top_p < 1), 0.0)
