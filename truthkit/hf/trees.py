"""Tokens of one row that go on from any earlier one of it, as a 4-D mask says, behind what a cache holds.

Such a forward has position ids and an additive mask of shape (batch, 1, width, past + width); afterwards `cache.crop`
takes its tokens back.
"""

from __future__ import annotations

from typing import Any

import torch

from truthkit.decoding.contrastive_search.lookahead import tree_obstacle
from truthkit.hf.branches import takes_branches
from truthkit.hf.growing_cache import GrowingCache
from truthkit.hf.packed_attention import PACKED


def takes_trees(model: Any) -> bool:
    """Whether a plain model can be given trees: as for branches, and its attention takes the mask."""
    cache = GrowingCache(config=model.config.get_text_config(decoder=True))
    return takes_branches(model) and tree_obstacle(model, cache, attentions=("sdpa", "eager", PACKED)) is None


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
