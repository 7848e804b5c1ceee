"""Attention written out a second time, with what PAI and SID do to it: one whole row, no cache, every layer in full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from truthkit.hf.sites import text_decoder
from truthkit.hf.wrapping import language_half

Change = Callable[[int, torch.Tensor], torch.Tensor]
"""From a block's number and its masked scores, (heads, queries, keys), to other scores."""

_CHANGES: dict[int, Change] = {}


def _forward(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: Any = None, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    heads, _, size = query.shape[1:]
    key, value = (one[0].repeat_interleave(heads // one.shape[1], dim=0) for one in (key, value))
    scores = torch.einsum("hqd,hkd->hqk", query[0], key) * (size**-0.5 if scaling is None else scaling)
    if kwargs.get("softcap"):
        scores = kwargs["softcap"] * torch.tanh(scores / kwargs["softcap"])
    if attention_mask is not None:
        scores = scores.masked_fill(attention_mask[0] < 0, -torch.inf)
    scores = _CHANGES[id(module.config)](module.layer_idx, scores)
    output = torch.einsum("hqk,hkd->qhd", torch.softmax(scores, dim=-1), value)
    return output[None], None


AttentionInterface.register("oracle", _forward)
AttentionMaskInterface.register("oracle", eager_mask)


@contextmanager
def attending(model: Any, change: Change) -> Iterator[None]:
    """Let the text decoder of `model` attend as `change` says in this block."""
    config = text_decoder(language_half(model)).config
    before, config._attn_implementation = config._attn_implementation, "oracle"
    _CHANGES[id(config)] = change
    try:
        yield
    finally:
        config._attn_implementation = before
        del _CHANGES[id(config)]


def pai(images: list[int], first: int, layers: list[int], alpha: float) -> Change:
    """Raise the scores of image tokens for queries from `first` on."""

    def change(layer: int, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        for query in range(first, scores.shape[1]) if layer in layers else ():
            for image in images:
                if scores[0, query, image] > -torch.inf:  # within the window
                    scores[:, query, image] += alpha * scores[:, query, image].abs()
        return scores

    return change


def sid(images: list[int], first: int, layer: int, rank: int) -> Change:
    """Hide all image tokens but the least attended ones from block `layer` on."""
    hidden: dict[int, list[int]] = {}

    def change(at: int, scores: torch.Tensor) -> torch.Tensor:
        if at == layer - 1:
            mean = torch.softmax(scores, dim=-1).mean(dim=0)
            for query in range(first, scores.shape[1]):
                ranked = sorted(images, key=lambda image, of=mean[query]: float(of[image]))
                hidden[query] = ranked[rank:]
        scores = scores.clone()
        for query in range(scores.shape[1]) if at >= layer else ():
            others = [key for key in hidden[max(query, first)] if key != query]
            scores[:, query, others] = -torch.inf
        return scores

    return change


def avisc(attention: torch.Tensor, layer_gamma: float, lam: float) -> list[int]:
    """Which image tokens are not blind, given how much of each block's attention they draw, (blocks, tokens)."""
    total = float(attention.sum())
    ranked = sorted(range(len(attention)), key=lambda block: -float(attention[block].sum()))
    chosen: list[int] = []
    for block in ranked:
        chosen.append(block)
        if sum(float(attention[one].sum()) for one in chosen) / total >= layer_gamma:
            break
    mean = torch.stack([attention[block] for block in chosen]).mean(dim=0)
    cut = float(mean.mean() + lam * mean.std())
    return [i for i, one in enumerate(mean.tolist()) if one < cut]
