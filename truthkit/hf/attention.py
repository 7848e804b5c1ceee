"""Attention of which single rows may be changed and looked at: scores edited, keys hidden, weights shown.

Inside of an `asking` block the attention layers run as outside of it, but for the rows, queries and layers that
somebody asks for. What is asked of the last queries only is worked out for these alone, beside the kernel for all.
"""

from __future__ import annotations

import functools
import itertools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask

from truthkit.errors import ModelError
from truthkit.hf.implementation import implementation, outside
from truthkit.hf.ownership import Block
from truthkit.hf.packed_attention import packed_attention_forward

ASKED = {"sdpa": "truthkit_asked", "eager": "truthkit_asked_eager"}
"""As transformers knows it, by what the model runs outside."""

Queries = slice | torch.Tensor
"""Some of a forward's tokens: a slice, or their indices in ascending order."""


@dataclass(frozen=True)
class Asked:
    """What is asked of one layer in one forward, for some rows of the batch.

    The functions are given a slice of the batch, which lies within `rows`.

    Attributes:
        rows: which; a slice that names both ends, or of all.
        queries: those that `scores` and `shown` are about.
        scores: makes other scores, before mask and softmax; shape (rows, heads, queries, keys).
        shown: is given the weights, after them; same shape.
        hidden: which keys cannot be seen, bool, shape (rows, all queries or 1, keys).
    """

    rows: slice
    queries: Queries
    scores: Callable[[torch.Tensor, slice], torch.Tensor] | None = None
    shown: Callable[[torch.Tensor, slice], None] | None = None
    hidden: Callable[[slice], torch.Tensor] | None = None


class Asking(Protocol):
    """Who asks.

    Attributes:
        block: in whose threads.
    """

    block: Block

    def asked(self, layer: int, queries: int, keys: int) -> Sequence[Asked]:
        """Of a layer, by its number, in a forward with so many tokens per row and keys in this layer."""


class Watch:
    """Keeps the weights of the last query of all rows in every layer.

    Args:
        block: in whose threads.

    Attributes:
        last: by layer, of the last forward, shape (rows, heads, 1, keys).
    """

    def __init__(self, block: Block):
        self.block = block
        self.last: dict[int, torch.Tensor] = {}

    def asked(self, layer: int, _queries: int, _keys: int) -> list[Asked]:
        """See `Asking`."""

        def keep(weights: torch.Tensor, rows: slice) -> None:
            self.last[layer] = torch.cat([self.last[layer], weights]) if rows.start else weights

        return [Asked(slice(None), slice(-1, None), shown=keep)]


_LOCK = threading.Lock()
_ASKING: dict[int, tuple[Asking, ...]] = {}
"""By a config's id, in the order of entry."""

_Base = Callable[..., tuple[torch.Tensor, torch.Tensor | None]]


def attention_obstacle(decoder: Any) -> str | None:
    """Why the attention of a text decoder cannot be asked for anything, as a clause; None if it can."""
    running = outside(decoder.config)
    if running not in ASKED:
        return (
            f"its attention implementation is {running!r}, whose kernel shows no scores; load the model with "
            'attn_implementation="sdpa" or "eager"'
        )
    if not decoder._supports_attention_backend:
        return "its attention layers do not go through transformers' AttentionInterface"
    return None


def check_readable(decoder: Any) -> None:
    """Raises:
    ModelError: the attention layers of `decoder`, a text decoder, cannot be asked (`attention_obstacle`).
    """
    if (obstacle := attention_obstacle(decoder)) is not None:
        raise ModelError(f"the attention of {type(decoder).__name__} cannot be read or edited: {obstacle}.")


@contextmanager
def asking(decoder: Any, one: Asking) -> Iterator[None]:
    """Let `one` ask of the attention layers of `decoder`, a text decoder, in this block.

    Raises:
        ModelError: they cannot be asked.
    """
    check_readable(decoder)
    config = decoder.config
    with implementation(config, ASKED[outside(config)], rank=1):
        with _LOCK:
            _ASKING[id(config)] = (*_ASKING.get(id(config), ()), one)
        try:
            yield
        finally:
            with _LOCK:
                left = tuple(other for other in _ASKING.pop(id(config)) if other is not one)
                if left:
                    _ASKING[id(config)] = left


def _sdpa(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    return packed_attention_forward(*args, **kwargs)


def _eager(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    forward: _Base = sys.modules[type(module).__module__].eager_attention_forward
    return forward(module, *args, **kwargs)


def asked_attention_forward(
    base: _Base,
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention with transformers' `AttentionInterface` signature; `base` is what runs where nothing is asked."""
    found = [
        asked
        for one in _ASKING.get(id(module.config), ())
        if one.block.here()
        for asked in one.asked(module.layer_idx, query.shape[2], key.shape[2])
    ]
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if not found:
        return base(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if kwargs.get("s_aux") is not None or kwargs.get("position_bias") is not None:
        raise ModelError(
            f"{type(module).__name__} adds sinks or a bias of its own to its attention scores, which cannot be edited."
        )
    layer = _Layer(base, module, scaling, kwargs)
    outputs, weights = [], []
    ends = [one.rows.indices(len(query))[:2] for one in found]
    masked = attention_mask is not None or query.shape[2] == 1
    if masked and all(one.scores is None and one.shown is None for one in found):  # one kernel for all rows
        every = layer.visible(attention_mask, query, key).expand(len(query), -1, -1, -1).clone()
        for one, rows in zip(found, itertools.starmap(slice, ends), strict=True):
            every[rows] = _hiding(one.hidden, rows, every[rows])
        return base(module, query, key, value, every, scaling=scaling, **kwargs)
    cuts = sorted({0, len(query), *itertools.chain(*ends)})
    for rows in itertools.starmap(slice, itertools.pairwise(cuts)):
        mask = attention_mask
        mask = mask[rows] if mask is not None and len(mask) > 1 else mask
        here = [one for one, (start, stop) in zip(found, ends, strict=True) if start <= rows.start < stop]
        output, weight = layer.run(query[rows], key[rows], value[rows], mask, here, rows)
        outputs.append(output)
        weights.append(weight)
    known = [weight for weight in weights if weight is not None]
    return torch.cat(outputs), torch.cat(known) if len(known) == len(outputs) else None


@dataclass(frozen=True)
class _Layer:
    """One attention layer in one forward."""

    base: _Base
    module: Any
    scaling: float
    kwargs: dict[str, Any]

    def run(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        asked: Sequence[Asked],
        rows: slice,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Outputs and weights of some rows, of which all of the same is asked."""
        width = query.shape[2]
        for one in asked:
            if one.hidden is not None:
                mask = _hiding(one.hidden, rows, self.visible(mask, query, key))
        looked = _together([one for one in asked if one.scores is not None or one.shown is not None])
        edited = [any(one.scores is not None for one in same) for same in looked]
        everything = any(found and _all_of(same[0].queries, width) for found, same in zip(edited, looked, strict=True))
        output, weights = torch.empty(0), None
        if not everything:
            output, weights = self.base(self.module, query, key, value, mask, scaling=self.scaling, **self.kwargs)
        for changed, same in zip(edited, looked, strict=True):
            queries = same[0].queries
            at = queries.to(query.device) if isinstance(queries, torch.Tensor) else queries
            visible = self.visible(mask, query, key)
            own, seen = self._looked_at(query[:, :, at], key, value, visible[:, :, at], same, rows)
            if changed and everything:
                output, weights = own, seen
            elif changed:
                output[:, at] = own
                if weights is not None:
                    weights[:, :, at] = seen
        return output, weights

    def visible(self, mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """The mask, also where the kernel needs none; shape (rows or 1, 1, queries, keys)."""
        if mask is not None:
            return mask
        width = query.shape[2]
        seen = torch.ones(1, 1, width, key.shape[2], dtype=torch.bool, device=query.device)
        causal = self.kwargs.get("is_causal")
        causal = getattr(self.module, "is_causal", True) if causal is None else causal
        return seen.tril() if causal and width > 1 else seen

    def _looked_at(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        visible: torch.Tensor,
        asked: Sequence[Asked],
        rows: slice,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output (rows, queries, heads, dim) and weights (rows, heads, queries, keys) of some queries."""
        batch, heads, count, _ = query.shape
        key_heads = key.shape[1]
        grouped = query.reshape(batch, key_heads, heads // key_heads * count, -1)
        scores = (grouped @ key.transpose(2, 3)).reshape(batch, heads, count, -1) * self.scaling
        if (cap := self.kwargs.get("softcap")) is not None:
            scores = torch.tanh(scores / cap) * cap
        for one in asked:
            scores = scores if one.scores is None else one.scores(scores, rows)
        if visible.dtype == torch.bool:
            scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
        else:
            scores = scores + visible
        exact = torch.float64 if scores.dtype == torch.float64 else torch.float32
        weights = scores.softmax(dim=-1, dtype=exact).to(query.dtype)
        for one in asked:
            if one.shown is not None:
                one.shown(weights, rows)
        output = weights.reshape(batch, key_heads, -1, weights.shape[-1]) @ value
        return output.reshape(batch, heads, count, -1).transpose(1, 2).contiguous(), weights


def _together(asked: Sequence[Asked]) -> list[list[Asked]]:
    """Those about the same queries side by side."""
    found: list[list[Asked]] = []
    for one in asked:
        same = next((group for group in found if _same(group[0].queries, one.queries)), None)
        if same is None:
            found.append([one])
        else:
            same.append(one)
    return found


def _same(one: Queries, other: Queries) -> bool:
    return one is other or (isinstance(one, slice) and isinstance(other, slice) and one == other)


def _all_of(queries: Queries, width: int) -> bool:
    return isinstance(queries, slice) and len(range(width)[queries]) == width


def _hiding(hidden: Callable[[slice], torch.Tensor] | None, rows: slice, mask: torch.Tensor) -> torch.Tensor:
    """The mask of some rows, bool or additive, without the keys that are hidden from them."""
    if hidden is None:
        return mask
    keys = hidden(rows).to(mask.device)[:, None]
    return mask & ~keys if mask.dtype == torch.bool else mask.masked_fill(keys, torch.finfo(mask.dtype).min)


for _outside, _base, _mask in (("sdpa", _sdpa, sdpa_mask), ("eager", _eager, eager_mask)):
    AttentionInterface.register(ASKED[_outside], functools.partial(asked_attention_forward, _base))
    AttentionMaskInterface.register(ASKED[_outside], _mask)
