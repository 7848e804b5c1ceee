"""Many rows that go on from few: what was read once serves them all, with no copy of it kept per row."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from truthkit.hf.growing_cache import GrowingCache, GrowingLayer


class BranchLayer(DynamicLayer):
    """One layer of a `BranchedCache`.

    Args:
        trunk: the layer that was read, of some rows.
        index: for each branch the row that it goes on from, shape (branches,), int64.
        keep: keep what comes, so that more can follow; else each forward begins at the trunk.
    """

    def __init__(self, trunk: Any, index: torch.Tensor, keep: bool):
        super().__init__()
        self.keys, self.values = trunk.keys, trunk.values
        self.is_initialized, self.dtype, self.device = True, trunk.keys.dtype, trunk.keys.device
        self._index: torch.Tensor | None = index.to(self.device)
        self._keep = keep

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.keys is not None
        assert self.values is not None
        before = self.keys, self.values
        if self._index is not None:
            before = self.keys[self._index], self.values[self._index]
        both = torch.cat([before[0], key_states], dim=-2), torch.cat([before[1], value_states], dim=-2)
        if self._keep:
            (self.keys, self.values), self._index = both, None
        return both


class BranchedCache(DynamicCache):
    """A cache for branches of what was read into `trunk`, which stays as it is.

    Args:
        trunk: a cache of full-attention layers only, or another `BranchedCache` that keeps.
        index, keep: as in `BranchLayer`.
    """

    def __init__(self, trunk: Any, index: torch.Tensor, *, keep: bool = False):
        super().__init__()
        self.layers = [BranchLayer(layer, index, keep) for layer in trunk.layers]


def takes_branches(model: Any) -> bool:
    """Whether rows of a plain model can go on from shared ones with padding in between.

    Each of its tokens sees all before it and none behind, and its place comes from position ids or the mask (Bloom);
    windows and recurrent states are not shared.
    """
    config = model.config.get_text_config(decoder=True)
    placed = "position_ids" in inspect.signature(model.forward).parameters or config.model_type == "bloom"
    causal = not getattr(config, "use_bidirectional_attention", None)
    layers = GrowingCache(config=config).layers
    return placed and causal and bool(layers) and all(type(layer) in (DynamicLayer, GrowingLayer) for layer in layers)
