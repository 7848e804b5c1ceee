"""Tokens of one row that go on from any earlier one of it, as a 4-D mask says, behind what a cache holds.

Such a forward has position ids and an additive mask of shape (batch, 1, width, past + width); afterwards `cache.crop`
takes its tokens back.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from transformers.cache_utils import (
    Cache,
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

from truthkit.hf.branches import takes_branches
from truthkit.hf.growing_cache import GrowingCache, GrowingLayer
from truthkit.hf.implementation import outside
from truthkit.hf.parted_cache import PartedLayer
from truthkit.hf.sites import text_decoder


def takes_trees(model: Any) -> bool:
    """Whether a plain model can be given trees: as for branches, and its attention takes the mask."""
    cache = GrowingCache(config=model.config.get_text_config(decoder=True))
    return takes_branches(model) and tree_obstacle(model, cache) is None


def additive(sight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where `sight` is true, else the lowest number; same shape."""
    return torch.zeros(sight.shape, dtype=dtype, device=sight.device).masked_fill(~sight, torch.finfo(dtype).min)


def behind_prompts(tree: torch.Tensor, prompts: torch.Tensor, length: int, dtype: torch.dtype) -> torch.Tensor:
    """The mask of a tree for the rows of all views.

    Args:
        tree: the main view's, additive, shape (batch, 1, width, past + width).
        prompts: which tokens of all views' prompts are real, shape (rows, longest), views one after the other.
        length: of the main view's prompt, the first columns of `tree`.
        dtype: of the result.
    """
    rest = tree[..., length:].to(dtype).repeat(len(prompts) // len(tree), 1, 1, 1)
    before = additive(prompts.bool(), dtype)[:, None, None].expand(-1, -1, tree.shape[2], -1)
    return torch.cat([before, rest], dim=-1)


def by_layer_type(
    model: Any, cache: Cache, width: int, make: Callable[[int, int], torch.Tensor]
) -> torch.Tensor | dict[str, torch.Tensor]:
    """The masks of a forward of `width` tokens per row, where sliding layers may have dropped some of the past.

    Args:
        model: a plain model.
        cache: what was read so far.
        width: how many tokens.
        make: given how many columns a layer sees and how many it has dropped before them, the mask.

    Returns:
        One tensor if all layers see equally many; else one for each layer type, under the names of the text config.
    """
    sizes = {
        bool(sliding): cache.get_mask_sizes(width, index)
        for index, (sliding, dummy) in enumerate(zip(cache.is_sliding, cache.is_dummy, strict=True))
        if not dummy
    }
    masks = {sliding: make(*size) for sliding, size in sizes.items()}
    if len(set(sizes.values())) == 1:
        return next(iter(masks.values()))
    return {kind: masks[kind == "sliding_attention"] for kind in set(text_decoder(model).config.layer_types)}


def keep_slots(cache: Cache, chosen: torch.Tensor, width: int) -> None:
    """Move some of the last `width` tokens to the front of these, in every layer.

    Args:
        cache: of layers that hold all of those.
        chosen: which of them, in their new order, shape (batch, count).
        width: how many there are.
    """
    count = chosen.shape[1]
    alike: dict[Any, list[torch.Tensor]] = {}
    for layer in cache.layers:
        for states in (getattr(layer, "keys", None), getattr(layer, "values", None)):
            if states is not None:
                slots = states.narrow(-2, states.shape[-2] - width, width)
                alike.setdefault((slots.shape, slots.dtype, slots.device), []).append(slots)
    for (shape, _, device), group in alike.items():
        index = chosen.to(device)[None, :, None, :, None].expand(len(group), *shape[:-2], count, shape[-1])
        moved = torch.stack(group).gather(3, index)
        torch._foreach_copy_([slots[:, :, :count] for slots in group], list(moved))


_TREE_LAYERS = (DynamicLayer, GrowingLayer, PartedLayer, DynamicSlidingWindowLayer, DummyLayer)


_OWN_POSITIONS = ("gpt_neo",)
_TAKE_THE_MASK = ("sdpa", "eager")


def tree_obstacle(model: Any, cache: Cache) -> str | None:
    """Why tokens of one row of `model` cannot be alternatives of each other, as a phrase for a message; None if they
    can.

    Args:
        model: a plain model.
        cache: what they would go into.
    """
    config = text_decoder(model).config
    attention = outside(config)
    if attention not in _TAKE_THE_MASK:
        return f"its attention implementation, {attention!r}, takes no 4-D mask"
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    if not takes_positions or getattr(config, "alibi", False) or config.model_type in _OWN_POSITIONS:
        return "it derives a token's position from its place in the cache"
    if getattr(config, "attention_chunk_size", None) is not None:
        return "it attends in chunks"
    kinds = {cache.layer_class_to_replicate or DynamicLayer, *map(type, cache.layers)}
    if other := sorted(kind.__name__ for kind in kinds if kind not in _TREE_LAYERS):
        return f"its cache holds {', '.join(other)}, from which single positions cannot be taken back"
    return None
