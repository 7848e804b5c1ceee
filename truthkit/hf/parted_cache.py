"""A cache whose views have different lengths: the rows of each length are a part of their own, and hold no padding for
the others.

A layer appends the new tokens of all rows, each to its part, and hands on the first part's keys, which know all the
others; the attention function (`truthkit.hf.packed_attention`) finds them there and attends part by part. For all else
the layer is one that holds every row at the longest length, with padding in front.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from truthkit.hf.growing_cache import GrowingLayer

HOLDER = "_truthkit_holder"
"""The attribute of keys by which the attention function finds what attends in its place."""

Attention = Callable[..., tuple[torch.Tensor, Any]]
"""An attention function with transformers' `AttentionInterface` signature."""


class Parting:
    """Which rows are in which part, for all layers of a cache. Rows are view-major: `batch` rows of each view.

    Args:
        views: the numbers of the views in each part, ascending; those of the first part begin with 0.
        batch: rows per view.
        ahead: for each part, how many columns fewer than the longest one it holds; they are padding of all its rows.
        padded: for each part, whether some of what it holds is hidden from some of its rows.
    """

    def __init__(self, views: Sequence[Sequence[int]], batch: int, ahead: Sequence[int], padded: Sequence[bool]):
        self.views, self.batch, self.ahead, self.padded = tuple(map(tuple, views)), batch, tuple(ahead), tuple(padded)
        self.count = sum(map(len, self.views))
        self._sizes = [len(part) * batch for part in self.views]
        self._in_order = [view for part in self.views for view in part] == list(range(self.count))
        self._rows_on: dict[torch.device, list[torch.Tensor]] = {}
        self._order: dict[torch.device, torch.Tensor] = {}
        self._masks: tuple[Any, list[torch.Tensor]] = None, []
        self._last: tuple[Any, Parting] | None = None

    @property
    def saved(self) -> int:
        """How many positions are not held, over all rows."""
        return sum(size * ahead for size, ahead in zip(self._sizes, self.ahead, strict=True))

    def apart(self, tensor: torch.Tensor) -> Sequence[torch.Tensor]:
        """Each part's rows of a tensor of all, shape (rows, ...)."""
        if self._in_order:
            return tensor.split(self._sizes)
        return [tensor[rows] for rows in self._rows(tensor.device)]

    def together(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The rows of all parts in their order, from one tensor for each part, shape (its rows, ...)."""
        whole = torch.cat(list(parts))
        if self._in_order:
            return whole
        if (order := self._order.get(whole.device)) is None:
            order = self._order[whole.device] = torch.cat(self._rows(whole.device)).argsort()
        return whole[order]

    def _rows(self, device: torch.device) -> list[torch.Tensor]:
        if device not in self._rows_on:
            every = torch.arange(self.count * self.batch, device=device).view(self.count, self.batch)
            self._rows_on[device] = [every[list(part)].flatten() for part in self.views]
        return self._rows_on[device]

    def masks(self, mask: torch.Tensor | None, queries: int) -> list[torch.Tensor | None]:
        """Each part's own of a mask of shape (rows, ..., queries, columns); None where a single query sees all."""
        if mask is None and queries > 1:
            raise ValueError("several queries per row were given no mask, but the parts differ in length.")
        state = None if mask is None else (mask, None if mask.is_inference() else mask._version)
        if state is not None and (self._masks[0] is None or not _same(self._masks[0], state)):
            parts = zip(self.apart(state[0]), self.ahead, strict=True)
            self._masks = state, [part[..., ahead:].contiguous() for part, ahead in parts]
        own = self._masks[1] if state is not None else [None] * len(self.views)
        return [one if padded or queries > 1 else None for one, padded in zip(own, self.padded, strict=True)]

    def select(self, index: torch.Tensor) -> tuple[Parting, list[torch.Tensor]]:
        """The parting when row `i` is what row `index[i]` was, and for each part the same as an index over its rows.

        Args:
            index: shape (rows,), int64; each view's rows come from its own, equally many of each.
        """
        if self._last is None or self._last[0] is not index:
            self._last = index, Parting(self.views, len(index) // self.count, self.ahead, self.padded)
        new = self._last[1]
        within = [torch.arange(size, device=index.device) for size in self._sizes]
        place = self.together(within)
        return new, [place[own] for own in new.apart(index)]


def _same(known: tuple[Any, Any], state: tuple[Any, Any]) -> bool:
    return known[0] is state[0] and known[1] == state[1]


class _Held:
    """What a layer held when it handed its keys on; it may be offloaded before they are attended to.

    Args:
        parting: of the rows.
        parts: keys and values of each part.
    """

    def __init__(self, parting: Parting, parts: Sequence[tuple[torch.Tensor, torch.Tensor]]):
        self._parting, self._parts = parting, parts

    def attend(
        self,
        attention: Attention,
        module: torch.nn.Module,
        query: torch.Tensor,
        _key: torch.Tensor,
        _value: torch.Tensor,
        mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """`attention` of the queries of all rows, part by part."""
        queries, masks = self._parting.apart(query), self._parting.masks(mask, query.shape[2])
        outputs = [
            attention(module, own, keys, values, seen, **kwargs)[0]
            for own, (keys, values), seen in zip(queries, self._parts, masks, strict=True)
        ]
        return self._parting.together(outputs), None


class PartedLayer(DynamicLayer):
    """One layer of all rows in parts.

    Args:
        parting: of the rows.
        parts: a layer for each part, filled.
    """

    def __init__(self, parting: Parting, parts: Sequence[GrowingLayer]):
        self.parting, self.parts = parting, tuple(parts)
        self.device = parts[0].device
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append, and return keys and values of the first part; the keys know all others'."""
        apart = self.parting.apart
        states = zip(self.parts, apart(key_states), apart(value_states), strict=True)
        held = [part.update(keys, values) for part, keys, values in states]
        first_keys, first_values = held[0]
        handed = first_keys.view(first_keys.shape)  # no cycle, or old buffers would wait for the garbage collector
        setattr(handed, HOLDER, _Held(self.parting, held))
        return handed, first_values

    def whole(self) -> GrowingLayer:
        """All rows in one layer, at the longest length."""
        layer = GrowingLayer()
        layer.keys, layer.values = self.keys, self.values
        layer.device, layer.is_initialized = self.device, True
        return layer

    @property
    def keys(self) -> torch.Tensor:  # type: ignore[override]
        """A copy, padded."""
        return self._padded([part.keys for part in self.parts])

    @property
    def values(self) -> torch.Tensor:  # type: ignore[override]
        """A copy, padded."""
        return self._padded([part.values for part in self.parts])

    def _padded(self, parts: Sequence[torch.Tensor | None]) -> torch.Tensor:
        ahead = self.parting.ahead
        filled = [torch.nn.functional.pad(part, (0, 0, n, 0)) for part, n in zip(parts, ahead, strict=True)]  # type: ignore[arg-type]
        return self.parting.together(filled)

    def get_seq_length(self) -> int:
        return self.parts[0].get_seq_length() + self.parting.ahead[0]

    def crop(self, tokens_to_remove: int) -> None:
        for part in self.parts:
            part.crop(tokens_to_remove)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Rows move only within their view; see `Parting.select`."""
        self.parting, own = self.parting.select(beam_idx)
        for part, index in zip(self.parts, own, strict=True):
            part.reorder_cache(index)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self.reorder_cache(indices.nonzero()[:, 0] if indices.dtype == torch.bool else indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        rows = self.parting.count * self.parting.batch
        self.reorder_cache(torch.arange(rows).repeat_interleave(repeats))

    def reset(self) -> None:
        for part in self.parts:
            part.reset()

    def offload(self) -> None:
        for part in self.parts:
            part.offload()

    def prefetch(self) -> None:
        for part in self.parts:
            part.prefetch()


class WatchedLayer(GrowingLayer):
    """A layer that sees whether what it hands on comes to the attention function as it is, which parts need.

    Attributes:
        arrived: the mask that came with them, in a tuple of its own; None if they did not arrive.
    """

    def __init__(self) -> None:
        super().__init__()
        self.arrived: tuple[torch.Tensor | None] | None = None
        self._handed: tuple[torch.Tensor, torch.Tensor] | None = None
        self._watching = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = super().update(key_states, value_states)
        if self._watching:
            self._handed = keys, values
            setattr(keys, HOLDER, self)
        return keys, values

    def attend(
        self,
        attention: Attention,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, Any]:
        """`attention` as it is."""
        same = self._handed is not None and self._handed[0] is key and self._handed[1] is value
        if same and kwargs.get("position_bias") is None:
            self.arrived = (mask,)
        return attention(module, query, self.keys, value, mask, **kwargs)

    def watched(self) -> tuple[torch.Tensor | None] | None:
        """End the watch; what `arrived` was."""
        self._watching, self._handed, arrived = False, None, self.arrived
        self.arrived = None
        return arrived


def watched_cache(layers: int) -> Cache:
    """An empty cache of `WatchedLayer`s."""
    return Cache(layers=[WatchedLayer() for _ in range(layers)])


def takes_parts(cache: Cache) -> bool:
    """Whether the model that filled `cache`, a `watched_cache`, can do with parts; it is watched no longer.

    In every layer keys and values must come to the attention function as the cache handed them on, with one mask for
    all layers: a mask that a layer makes for itself may be made from the keys.
    """
    arrived = [layer.watched() for layer in cache.layers if isinstance(layer, WatchedLayer)]
    return None not in arrived and len({id(one[0]) for one in arrived if one is not None}) == 1


def first_part_alone(cache: Any) -> int:
    """Let `cache` hold the rows of the first part alone, as plain layers; how many columns fewer they have now."""
    ahead = 0
    for number, layer in enumerate(cache.layers):
        if isinstance(layer, PartedLayer):
            ahead, cache.layers[number] = layer.parting.ahead[0], layer.parts[0]
    return ahead
