"""Many rows that go on from one: what was read once serves them all, without a copy of it per row."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from truthkit.decoding.cache import GrowingLayer


class BranchLayer(DynamicLayer):
    """One layer of a `BranchedCache`: the trunk's states in front of whatever comes, and nothing is kept.

    Args:
        trunk: the layer that was read, of some rows; `n` times as many rows go on from it, row by row in turn.
    """

    def __init__(self, trunk: Any):
        super().__init__()
        self.keys, self.values = trunk.keys, trunk.values
        self.is_initialized, self.dtype, self.device = True, trunk.keys.dtype, trunk.keys.device

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.keys is not None
        assert self.values is not None
        return _behind(self.keys, key_states), _behind(self.values, value_states)


class BranchedCache(DynamicCache):
    """A cache for one forward of branches: `trunk`'s contents for all of them.

    Args:
        trunk: a cache whose layers all pass `can_branch`.
    """

    def __init__(self, trunk: Any):
        super().__init__()
        self.layers = [BranchLayer(layer) for layer in trunk.layers]


def can_branch(cache: Any) -> bool:
    """Whether a cache holds plain full-attention layers only: windows and recurrent states are not shared."""
    return bool(cache.layers) and all(type(layer) in (DynamicLayer, GrowingLayer) for layer in cache.layers)


def _behind(trunk: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    copies = len(new) // len(trunk)
    wide = trunk[:, None].expand(-1, copies, -1, -1, -1).reshape(-1, *trunk.shape[1:]) if copies > 1 else trunk
    return torch.cat([wide, new], dim=-2)
