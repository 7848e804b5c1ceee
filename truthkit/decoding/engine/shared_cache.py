"""The generation loop's own cache, while it carries the rows of all views: room for the longest view, and the way
back.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import (
    DummyLayer,
    DynamicIndexedLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionAndStaticFullAttentionLayer,
    LinearAttentionAndStaticSlidingWindowAttentionLayer,
    LinearAttentionLayer,
    StaticIndexedLayer,
    StaticLayer,
    StaticSlidingWindowLayer,
)

from truthkit.errors import ArgumentError
from truthkit.hf.growing_cache import GrowingLayer
from truthkit.hf.parted_cache import first_part_alone


def is_static(cache: Any) -> bool:
    """Whether `cache` has a fixed length."""
    return any(isinstance(layer, StaticLayer) for layer in cache.layers)


def static_length(cache: Any) -> int:
    """The number of tokens that a static cache has room for."""
    return max(layer.max_cache_len for layer in cache.layers if isinstance(layer, StaticLayer))


def make_room(cache: Any, extra: int, config: Any) -> None:
    """Let an empty static cache hold `extra` more tokens; all other caches grow by themselves."""
    if extra and is_static(cache):
        cache.layers = type(cache)(config=config, max_cache_len=static_length(cache) + extra).layers


def start_anew(cache: Any, config: Any) -> None:
    """Let a cache that was used, and cropped to nothing, take any number of rows."""
    if is_static(cache):
        if any(layer.is_initialized for layer in cache.layers if isinstance(layer, StaticLayer)):
            cache.layers = type(cache)(config=config, max_cache_len=static_length(cache)).layers
        return
    for layer in cache.layers:
        if isinstance(layer, DynamicLayer) and layer.is_initialized:
            layer.keys, layer.values, layer.is_initialized = None, None, False


_ROWS_KNOWN = (DynamicIndexedLayer, StaticIndexedLayer, DummyLayer)
_WHOLLY_KNOWN = (
    DynamicLayer,
    GrowingLayer,
    DynamicSlidingWindowLayer,
    StaticLayer,
    StaticSlidingWindowLayer,
    LinearAttentionLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionAndStaticFullAttentionLayer,
    LinearAttentionAndStaticSlidingWindowAttentionLayer,
)
"""Layers that keep keys, values and recurrent states, and no more."""


def check_narrows(cache: Any, extra: int, name: str) -> None:
    """Raise unless the main view can be left alone in `cache` afterwards, without its first `extra` slots.

    Args:
        cache: the loop's.
        extra: as in `keep_main_view`.
        name: of the decoder.

    Raises:
        ArgumentError: a layer keeps more than keys and values (quantised, compressed, indexed).
    """
    known = _WHOLLY_KNOWN if extra else (*_WHOLLY_KNOWN, *_ROWS_KNOWN)
    if strange := next((layer for layer in cache.layers if type(layer) not in known), None):
        raise ArgumentError(
            f"the cache has layers of type {type(strange).__name__}, which keep more than keys and values: it "
            f"cannot be returned with the main view of {name} alone. Leave cache= and return_dict_in_generate out, or "
            "use the default cache."
        )


def keep_main_view(cache: Any, batch: int, extra: int) -> None:
    """Forget all rows but the first `batch`, and their first `extra` slots, which are padding for longer views."""
    extra -= first_part_alone(cache)
    cache.reorder_cache(torch.arange(batch))
    for layer in cache.layers if extra else []:
        if isinstance(getattr(layer, "keys", None), torch.Tensor) and layer.keys.numel():
            _drop_first(layer, extra)


def _drop_first(layer: Any, extra: int) -> None:
    """A sliding window may have dropped some of them already: it holds the last tokens only."""
    seen = int(layer.get_seq_length())
    filled = min(seen, layer.keys.shape[-2])
    drop = filled - min(filled, seen - extra)
    if isinstance(layer, StaticLayer):
        assert layer.keys is not None
        assert layer.values is not None
        layer.keys, layer.values = layer.keys.roll(-drop, dims=-2), layer.values.roll(-drop, dims=-2)
        layer.crop(-extra)
        layer.cumulative_length.fill_(filled - drop)
    else:
        layer.keys, layer.values = layer.keys[..., drop:, :], layer.values[..., drop:, :]
        if isinstance(layer, DynamicSlidingWindowLayer):
            layer.cumulative_length = seen - extra
