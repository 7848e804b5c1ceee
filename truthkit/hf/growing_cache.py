"""A key/value cache that writes into spare room instead of copying itself at every token.

`DynamicCache` appends with `torch.cat`: each new token copies every key and value once more. Here a layer owns a buffer
that is longer than its contents, and appending writes one slot.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, EncoderDecoderCache

_ROUND_TO = 64
_MOST_SPARE = 1024


def _capacity(length: int) -> int:
    """Slots to allocate for `length` tokens: half as many spare ones, at most 1,024, and a multiple of 64 in all."""
    wanted = length + min(length // 2, _MOST_SPARE) + 1
    return -(-wanted // _ROUND_TO) * _ROUND_TO


class GrowingTensor:
    """A tensor of shape (..., length, dim) at the start of a buffer of shape (..., capacity, dim).

    Args:
        data: the first contents, shape (..., length, dim). They are read, never written: the first append moves them.
    """

    def __init__(self, data: torch.Tensor):
        self._buffer = data
        self._own = False
        self.length = data.shape[-2]

    @property
    def view(self) -> torch.Tensor:
        """The contents, shape (..., length, dim): a view that later appends leave in place until the buffer moves."""
        return self._buffer.narrow(-2, 0, self.length)

    def append(self, states: torch.Tensor) -> torch.Tensor:
        """Write `states`, shape (..., new, dim), behind the contents, cast to their dtype, and return the new view.

        Raises:
            ValueError: the leading dimensions or `dim` differ, where a plain write would broadcast.
        """
        buffer, start = self._buffer, self.length
        shape = buffer.shape
        if states.shape[:-2] != shape[:-2] or states.shape[-1] != shape[-1]:
            raise ValueError(
                f"cannot append states of shape {tuple(states.shape)} to {tuple(self.view.shape)}: all but the "
                "second-last dimension must be equal."
            )
        self.length = stop = start + states.shape[-2]
        writable = self._own and (torch.is_inference_mode_enabled() or not buffer.is_inference())
        if stop > shape[-2] or not writable:
            old = buffer
            self._buffer = buffer = old.new_empty((*shape[:-2], _capacity(stop), shape[-1]))
            buffer.narrow(-2, 0, start).copy_(old.narrow(-2, 0, start))
            self._own = True
        buffer.narrow(-2, start, stop - start).copy_(states)
        return buffer.narrow(-2, 0, stop)

    def crop(self, count: int) -> None:
        """Forget the last `count` slots; with more than there are, all of them."""
        self.length = max(self.length - count, 0)

    def select(self, rows: torch.Tensor) -> None:
        """Make row `i` what row `rows[i]` was; `rows` is a 1-D index or boolean mask over the first dimension."""
        self._buffer = self._buffer[rows.to(self._buffer.device)]
        self._own = True

    def to(self, device: torch.device | str) -> None:
        """Move buffer and contents, without waiting for the copy."""
        self._buffer = self._buffer.to(device, non_blocking=True)


class GrowingLayer(DynamicLayer):
    """A full-attention cache layer that grows in place. Dtype and device follow the first keys.

    `keys` and `values`, shape (batch, heads, length, head dim), are views of a longer buffer. A tensor assigned to them
    from outside becomes the new contents. For inference: writing in place does not keep what a backward pass needs.
    """

    _keys: GrowingTensor | None
    _values: GrowingTensor | None

    @property
    def keys(self) -> torch.Tensor | None:
        return None if self._keys is None else self._keys.view

    @keys.setter
    def keys(self, tensor: torch.Tensor | None) -> None:
        self._keys = None if tensor is None else GrowingTensor(tensor)

    @property
    def values(self) -> torch.Tensor | None:
        return None if self._values is None else self._values.view

    @values.setter
    def values(self, tensor: torch.Tensor | None) -> None:
        self._values = None if tensor is None else GrowingTensor(tensor)

    def _both(self) -> tuple[GrowingTensor, ...]:
        return tuple(states for states in (self._keys, self._values) if states is not None)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.device = key_states.device
        self.keys = key_states.new_empty((*key_states.shape[:-2], 0, key_states.shape[-1]))
        self.values = value_states.new_empty((*value_states.shape[:-2], 0, value_states.shape[-1]))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self._keys is None or self._values is None:
            self.lazy_initialization(key_states, value_states)
        assert self._keys is not None
        assert self._values is not None
        return self._keys.append(key_states), self._values.append(value_states)

    def get_seq_length(self) -> int:
        return 0 if self._keys is None else self._keys.length

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove > 0:
            super().crop(tokens_to_remove)
        for states in self._both():
            states.crop(-tokens_to_remove)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        for states in self._both():
            states.select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        for states in self._both():
            states.select(torch.arange(states.view.shape[0]).repeat_interleave(repeats))

    def offload(self) -> None:
        for states in self._both():
            states.to("cpu")

    def prefetch(self) -> None:
        for states in self._both():
            states.to(self.device)


class GrowingCache(DynamicCache):
    """A `DynamicCache` whose full-attention layers grow in place; same arguments, same results, same operations.

    Pass it as `model.generate(..., cache=GrowingCache(config=model.config))`. Sliding-window, linear-attention and
    other layers stay as `DynamicCache` makes them.

    Memory: each layer holds at most half as many spare slots as tokens, never more than 1,024 (+ 63 of rounding), per
    row. While a layer's buffer moves, that one layer exists twice, as it does at every token in `DynamicCache`.

    Args:
        ddp_cache_data, config, offloading, offload_only_non_sliding: as in `DynamicCache`. Without a `config` every
            layer is full attention.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        grow(self)


def grow(cache: Cache) -> None:
    """Make the plain `DynamicLayer`s of `cache`, empty or filled, grow in place; all other layers stay as they are.

    Nothing is copied here: a filled layer moves to a buffer with its next token. In an encoder-decoder cache only the
    decoder's own attention grows.
    """
    if isinstance(cache, EncoderDecoderCache):
        cache = cache.self_attention_cache
    if cache.layer_class_to_replicate is DynamicLayer:
        cache.layer_class_to_replicate = GrowingLayer
    cache.layers[:] = [_growing(layer) if type(layer) is DynamicLayer else layer for layer in cache.layers]


def _growing(layer: DynamicLayer) -> GrowingLayer:
    grown = GrowingLayer()
    if layer.get_seq_length():
        grown.keys, grown.values = layer.keys, layer.values
        grown.device, grown.is_initialized = layer.device, True
    return grown
