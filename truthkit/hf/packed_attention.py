"""Grouped-query attention that keeps the heads of a group together as query rows.

The heads that share keys become further query rows: (batch, heads, queries, dim) is read as
(batch, key heads, group * queries, dim). transformers' `sdpa` copies keys and values once per query head for several
masked query positions; for a single one it asks torch for grouped heads, which on a CPU in bfloat16 takes up to eight
times as long as the same rows packed. Packed rows need the mask once per head of a group, which for a prompt is larger
than the copies saved: so only up to 256 query positions are packed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from truthkit.hf.implementation import implementation, outside
from truthkit.hf.parted_cache import HOLDER

PACKED = "truthkit_packed"
"""As transformers knows it."""

_MOST = 256
"""How many query positions are packed at most."""


def packed_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention with transformers' `AttentionInterface` signature.

    What is packed are grouped queries under a mask, or a single one without, up to 256 positions. On one CPU thread,
    two rows of 9 or 32 heads on 3 or 8, packing took 0.05 to 0.7 of the time of repeated keys for 1 to 16 positions
    behind 1,000, 0.8 to 0.9 for 256 behind 256, and 1.0 to 1.1 for a prompt of 1,024. All else goes to `sdpa`. Keys
    of a layer in parts (`truthkit.hf.parted_cache`) are attended to part by part, each by this rule.

    Args:
        module: the attention layer.
        query: shape (batch, heads, queries, dim).
        key: shape (batch, key heads, length, dim).
        value: shape (batch, key heads, length, value dim).
        attention_mask: shape (batch, 1, queries, length), bool or additive; None for a single query that sees all.
        scaling: factor on the scores, default 1 / sqrt(dim).
        **kwargs: what else the layer passes; only `dropout` matters here.

    Returns:
        Output of shape (batch, queries, heads, dim), and None for the weights.
    """
    if (holder := getattr(key, HOLDER, None)) is not None:
        return holder.attend(
            packed_attention_forward, module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    batch, heads, queries, _ = query.shape
    key_heads = key.shape[1]
    group = heads // key_heads
    same_for_heads = attention_mask.shape[1] == 1 if attention_mask is not None else queries == 1
    if group == 1 or queries > _MOST or not same_for_heads or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    output = scaled_dot_product_attention(
        query.reshape(batch, key_heads, group * queries, -1),
        key,
        value,
        attn_mask=attention_mask if queries == 1 or attention_mask is None else _for_groups(attention_mask, group),
        dropout_p=kwargs.get("dropout", 0.0),
        scale=scaling,
    )
    return output.reshape(batch, heads, queries, -1).transpose(1, 2).contiguous(), None


def _for_groups(mask: torch.Tensor, group: int) -> torch.Tensor:
    """The mask for the rows of a group, which all layers of a forward share."""
    if torch.compiler.is_compiling() or mask.is_inference():  # it is not known whether it changed
        return mask.repeat(1, 1, group, 1)
    state = group, mask._version
    known: Any = getattr(mask, _REPEATED, (None, mask))
    if known[0] != state:
        known = state, mask.repeat(1, 1, group, 1)
        setattr(mask, _REPEATED, known)
    return known[1]


AttentionInterface.register(PACKED, packed_attention_forward)
AttentionMaskInterface.register(PACKED, sdpa_mask)


_REPEATED = "_truthkit_repeated"
"""Where a mask keeps itself repeated for a group's rows, with its state then."""


def is_packed(decoder: Any) -> bool:
    """Whether the attention layers of `decoder`, a text decoder, run packed now."""
    return bool(decoder.config._attn_implementation == PACKED)


@contextmanager
def packed_attention(decoder: Any) -> Iterator[None]:
    """Run the attention layers of `decoder`, a text decoder, packed in this block, if they run `sdpa` outside.

    Blocks may be left in any order; the last one to go puts `sdpa` back.
    """
    config = decoder.config
    if outside(config) != "sdpa" or not decoder._supports_attention_backend:
        yield
        return
    with implementation(config, PACKED, rank=0):
        yield
