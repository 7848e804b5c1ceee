"""Two ways to look one token ahead at k candidates of every row: as a tree in the row, or as k rows.

`Tree` feeds the k candidates as k positions of the *same* row. All carry the same position id, and each sees the row's
past and itself, so the cached past is shared and never copied. The winner's keys and values move to the first of the k
slots, the other slots are cropped. `Rows` is the classic form, for models in which positions of one row cannot be
alternatives of each other: the cache is repeated k times and the winners' rows are kept.
"""

from __future__ import annotations

import functools
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicSlidingWindowLayer,
    LinearAttentionCacheLayerMixin,
    QuantizedCache,
    StaticCache,
)

from truthkit.errors import ArgumentError, ModelError
from truthkit.hf.growing_cache import GrowingCache, grow
from truthkit.hf.packed_attention import packed_attention
from truthkit.hf.trees import _TREE_LAYERS, additive, by_layer_type, keep_slots, tree_obstacle

_ALONG_TOKENS = ("position_ids", "token_type_ids", "mm_token_type_ids", "moe_mm_token_type_ids")
_SPARE = 256
"""For how many more tokens a mask has room when it runs out."""
_STATE_ELSEWHERE = (
    "{} keeps its state outside of a transformers Cache, so contrastive search cannot look ahead and come back; "
    "use greedy search or sampling."
)


class Layout(Protocol):
    """How k candidates of every row enter one forward, and how the winner stays behind in the cache."""

    def start(self, cache: Cache) -> None:
        """Called when `cache` holds the prompt, or other tokens than the last step left in it.

        Raises:
            ModelError: the forward left recurrent state elsewhere than in `cache`.
        """

    def inputs(self, model: Any, candidates: torch.Tensor, model_kwargs: dict[str, Any]) -> dict[str, Any]:
        """The forward's keyword arguments.

        Args:
            model: the plain model.
            candidates: token ids, shape (batch, k).
            model_kwargs: as `generate` keeps them, advanced to the candidates' position: `cache` with `length` tokens,
                `attention_mask` of shape (batch, length + 1) or None, `position_ids` of shape (..., length + 1).
        """

    def running(self, decoder: Any) -> AbstractContextManager[None]:
        """The block in which the forward runs."""

    def keep(self, cache: Cache, winner: torch.Tensor, k: int) -> None:
        """Leave in `cache` the past and the winning candidates; `winner` has shape (batch,), values below `k`."""

    def finish(self, cache: Cache) -> None:
        """Called once at the end: take the last token back if possible, and leave `cache` as `generate` would."""


class Tree:
    """The candidates as k positions of the same row. The forward's hidden states have shape (batch, k, hidden)."""

    def __init__(self) -> None:
        self._past: torch.Tensor | None = None
        self._candidates: torch.Tensor | None = None

    def start(self, cache: Cache) -> None:
        cache.activate_past_recording()
        self._past = None

    def inputs(self, model: Any, candidates: torch.Tensor, model_kwargs: dict[str, Any]) -> dict[str, Any]:
        k, cache = candidates.shape[1], model_kwargs["cache"]
        repeated = {
            name: value[..., -1:].expand(*value.shape[:-1], k)
            for name in _ALONG_TOKENS
            if (value := model_kwargs.get(name)) is not None
        }
        inputs = model.prepare_inputs_for_generation(candidates, **model_kwargs | repeated)
        make = functools.partial(self._mask, model.dtype, model_kwargs.get("attention_mask"), candidates)
        return inputs | {"attention_mask": by_layer_type(model, cache, k, make)}

    def _mask(
        self, dtype: torch.dtype, padding: torch.Tensor | None, candidates: torch.Tensor, columns: int, offset: int
    ) -> torch.Tensor:
        """An additive mask, 0 where candidate i may look: the row's own past tokens and itself; (batch, 1, k, columns).

        The past's is kept from step to step: what is added to it is no padding.
        """
        (batch, k), stop = candidates.shape, offset + columns - candidates.shape[1]
        if self._candidates is None or self._candidates.shape[-1] != k:
            self._candidates = additive(torch.eye(k, dtype=torch.bool, device=candidates.device), dtype)
        if self._past is None:
            sight = candidates.new_ones(1, stop) if padding is None else padding[:, :stop]
            self._past = additive(sight.bool(), dtype)[:, None, None]
        if (missing := stop - self._past.shape[-1]) > 0:
            self._past = torch.nn.functional.pad(self._past, (0, missing + _SPARE))
        past = self._past[..., offset:stop].expand(batch, 1, k, -1)
        return torch.cat([past, self._candidates.expand(batch, 1, k, k)], dim=-1)

    def running(self, decoder: Any) -> AbstractContextManager[None]:
        return packed_attention(decoder)

    def keep(self, cache: Cache, winner: torch.Tensor, k: int) -> None:
        keep_slots(cache, winner[:, None], k)
        cache.crop(1 - k)

    def finish(self, cache: Cache) -> None:
        if can_crop(cache):
            cache.crop(-1)
        for layer in cache.layers:
            if hasattr(layer, "record_past"):
                layer.record_past = False


class Rows:
    """The candidates as k rows for each row. The forward's hidden states have shape (batch * k, 1, hidden)."""

    def start(self, cache: Cache) -> None:
        for layer in cache.layers:
            if isinstance(layer, LinearAttentionCacheLayerMixin) and not any(layer.has_previous_state.values()):
                raise ModelError(_STATE_ELSEWHERE.format("the model"))

    def inputs(self, model: Any, candidates: torch.Tensor, model_kwargs: dict[str, Any]) -> dict[str, Any]:
        batch, k = candidates.shape
        model_kwargs["cache"].reorder_cache(torch.arange(batch, device=candidates.device).repeat_interleave(k))
        repeated = {
            name: value.expand(*value.shape[:-2], batch, -1).repeat_interleave(k, dim=-2)
            for name in ("attention_mask", *_ALONG_TOKENS)
            if (value := model_kwargs.get(name)) is not None
        }
        return model.prepare_inputs_for_generation(
            candidates.reshape(-1, 1), next_sequence_length=1, **model_kwargs | repeated
        )

    def running(self, decoder: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def keep(self, cache: Cache, winner: torch.Tensor, k: int) -> None:
        rows = torch.arange(len(winner), device=winner.device) * k + winner
        cache.reorder_cache(rows)  # type: ignore[arg-type]

    def finish(self, cache: Cache) -> None:
        if can_crop(cache):
            cache.crop(-1)


def prepare_cache(model: Any, model_kwargs: dict[str, Any]) -> Layout:
    """Choose how the candidates of `model` run, and see to it that `model_kwargs["cache"]` serves that.

    Raises:
        ArgumentError: the cache is quantized, or already filled.
        ModelError: the model keeps its state outside of `cache`.
    """
    cache = model_kwargs.get("cache")
    if cache is None and model._supports_default_dynamic_cache():
        cache = model_kwargs["cache"] = DynamicCache(config=model.config)
    model_kwargs["use_cache"] = True
    if not isinstance(cache, Cache):
        raise ModelError(_STATE_ELSEWHERE.format(type(model).__name__))
    if isinstance(cache, QuantizedCache):
        raise ArgumentError("contrastive search cannot take tokens back from a quantized cache; use the default cache.")
    if holds_tokens(cache):
        raise ArgumentError(
            "the cache already holds tokens, but not their last hidden states, which contrastive search compares "
            "candidates with; pass an empty cache and the whole prompt."
        )
    if isinstance(cache, StaticCache):
        warnings.warn("contrastive search replaces the static cache by a growing one.", stacklevel=2)
        cache = model_kwargs["cache"] = GrowingCache(config=model.config)
    if (obstacle := tree_obstacle(model, cache)) is None:
        grow(cache)
        return Tree()
    warnings.warn(
        f"contrastive search repeats the cache of {type(model).__name__} for every candidate at each step, because "
        f"{obstacle}: slower, and with top_k times the cache's memory.",
        stacklevel=2,
    )
    return Rows()


def check_filled(model: Any, cache: Cache) -> None:
    """Raise unless the prompt's forward wrote into `cache`.

    Raises:
        ModelError: it did not: the model knows no cache (openai-gpt).
    """
    if not holds_tokens(cache):
        raise ModelError(_STATE_ELSEWHERE.format(type(model).__name__))


def holds_tokens(cache: Cache) -> bool:
    """Whether something was read into `cache`."""
    linear = bool(cache.layers) and all(cache.is_linear)
    return bool(cache.has_previous_state() if linear else cache.get_seq_length())


def can_crop(cache: Cache) -> bool:
    """Whether tokens can be taken back from `cache` between steps: nothing in it is recurrent or has left a window."""
    return all(
        type(layer) in _TREE_LAYERS
        and not (isinstance(layer, DynamicSlidingWindowLayer) and layer.get_seq_length() >= layer.sliding_window)
        for layer in cache.layers
    )
