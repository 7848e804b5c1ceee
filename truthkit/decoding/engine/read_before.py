"""What was read of the prompts for a question about them (`Source.ask`) is not read again for their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from truthkit.decoding.engine.row_group import RowGroup
from truthkit.hf.growing_cache import GrowingLayer

_SEVERAL = ("num_beams", "num_return_sequences")
_OTHER_LOOPS = ("assistant_model", "prompt_lookup_num_tokens", "cache", "past_key_values", "cache_implementation")
_WHOLE = (DynamicLayer, GrowingLayer)
_TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")


def read_before(group: RowGroup, ids: torch.Tensor, kwargs: Mapping[str, Any], run: Callable[..., Any]) -> Any:
    """A cache with the first tokens of all views: the main view's as they were read for the question, and those of the
    other views, which differ in their images alone.

    Args:
        group: all views there are, their images encoded.
        ids: the prompts, shape (batch, length).
        kwargs: of `generate`.
        run: a forward of the model as it is.

    Returns:
        None if nothing was read that fits, or `generate` is to run in a mode that begins by itself.
    """
    asked, config = group.images.asked, kwargs.get("generation_config") or group.model.generation_config
    if asked is None or ids.shape[1] != asked.length or group.vision is not group.model:
        return None
    if not group.same_prompt or group.group.adapters or group.attention or group.prompt_exits:
        return None
    several = any((kwargs.get(name) or getattr(config, name, None) or 1) > 1 for name in _SEVERAL)
    if several or any(kwargs.get(name) is not None for name in _OTHER_LOOPS) or kwargs.get("use_cache") is False:
        return None
    if not all(type(layer) in _WHOLE for layer in asked.cache.layers):
        return None
    if getattr(group.model.config.get_text_config(decoder=True), "use_bidirectional_attention", False):
        return None  # all of a prompt was read in the light of the question
    cache: Any = asked.cache
    length = asked.length - asked.behind
    cache.crop(length - cache.get_seq_length())
    others = _read_others(group, ids, length, kwargs, run)
    for mine, theirs in zip(cache.layers, others.layers, strict=True):
        mine.keys, mine.values = torch.cat([mine.keys, theirs.keys]), torch.cat([mine.values, theirs.values])
    return cache


def _read_others(
    group: RowGroup, ids: torch.Tensor, length: int, kwargs: Mapping[str, Any], run: Callable[..., Any]
) -> Any:
    """A cache of the first `length` columns of all views but the main one."""
    batch, others = len(ids), range(1, group.rows)
    mask = kwargs.get("attention_mask")
    group.begin(ids, mask)
    mask = ids.new_ones(batch, length) if mask is None else mask[:, :length].long()
    axes = group.prompt.axes
    types = {name: kwargs[name][:, :length].repeat(len(others), 1) for name in _TOKEN_TYPES if name in kwargs}
    wide_mask = mask.repeat(len(others), 1)
    cache = DynamicCache(config=group.model.config)
    run(
        input_ids=ids[:, :length].repeat(len(others), 1),
        attention_mask=wide_mask,
        position_ids=(wide_mask.cumsum(dim=1) - 1).clamp_min_(0) if axes is None else axes[:, batch:, :length],
        mm_encoder_outputs={"image": group.images.output(batch, others)},
        cache=cache,
        use_cache=True,
        logits_to_keep=1,
        **types,
    )
    return cache
