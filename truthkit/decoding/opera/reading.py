"""All beams of a prompt, and all their candidates, as tokens of one row: no past is copied, none is read twice.

The cache holds the prompt and behind it *slots*: tokens of all beams that were ever kept, in the order in which they
came. A mask shows each token those that it goes on from. Going back is to go on from earlier slots.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationMixin
from transformers.cache_utils import Cache, QuantizedCache, StaticCache

from truthkit.decoding.opera.beams import Attention, padded
from truthkit.errors import ArgumentError, ModelError
from truthkit.hf.attention import Asked, asking
from truthkit.hf.growing_cache import GrowingCache, grow
from truthkit.hf.head_input import head_reads
from truthkit.hf.ownership import Block
from truthkit.hf.sites import text_decoder
from truthkit.hf.spread import is_spread
from truthkit.hf.trees import additive, keep_slots, tree_obstacle

NAME = "opera"

_ALONG_TOKENS = ("token_type_ids", "mm_token_type_ids", "moe_mm_token_type_ids")


@dataclass(frozen=True)
class Fed:
    """Tokens of one prompt's row.

    Attributes:
        tokens: shape (count,); () for none.
        slots: of those before each, in order, shape (count, t).
    """

    tokens: torch.Tensor
    slots: torch.Tensor


Choose = Callable[[list[Attention], int], list[torch.Tensor]]
"""Given how the tokens of every prompt look back, and the slot of the first that is kept: which are kept, and in which
order."""


class Reader:
    """Reads prompts, and behind each the tokens of its beams.

    Args:
        model: the plain model.
        model_kwargs: as `generate` keeps them, one row per prompt; changed in place.
        width: tokens of a row in each forward.
        kept: tokens of a row that are kept at most.

    Raises:
        ArgumentError: the cache is quantized, or holds tokens.
        ModelError: the model cannot read several beams in one row, or its attention cannot be seen.
    """

    def __init__(self, model: Any, model_kwargs: dict[str, Any], width: int, kept: int):
        self._model, self._kwargs, self._width, self._kept = model, model_kwargs, width, kept
        config = model.config.get_text_config(decoder=True)
        own = GrowingCache(config=config)
        refuse_model(model, own)
        self._cache = self._kwargs["cache"] = _prepared(model_kwargs.get("cache"), any(own.is_sliding))
        self._kwargs["use_cache"] = True
        self._windows = _windows(config, own)
        self._last = len(own.layers) - 1
        self._prompt = 0
        self._weights: torch.Tensor | None = None
        self.block = Block(NAME)

    def attach(self, stack: ExitStack) -> None:
        """Look at the last block's attention from now on; `stack` ends it."""
        stack.enter_context(asking(text_decoder(self._model), self))

    def asked(self, layer: int, queries: int, keys: int) -> Sequence[Asked]:
        """See `truthkit.hf.attention.Asking`."""
        if layer != self._last:
            return ()
        return [Asked(slice(0, len(self._sight)), slice(None), shown=self._see)]

    def _see(self, weights: torch.Tensor, _rows: slice) -> None:
        highest = weights.amax(dim=1)
        highest = highest if highest.dtype == torch.float64 else highest.float()
        self._weights = highest / highest.sum(dim=-1, keepdim=True)

    def prefill(self, input_ids: torch.Tensor, generation_config: Any, images: torch.Tensor, repeats: int) -> Any:
        """Read the prompts.

        Args:
            input_ids: shape (prompts * repeats, length).
            generation_config: of the call.
            images: which tokens are an image's, shape (prompts, length or 0).
            repeats: how many rows each prompt has here; one of them stays.

        Returns:
            Logits of shape (prompts, vocabulary).
        """
        outputs = self._model._prefill(input_ids, generation_config, self._kwargs)
        logits = outputs.logits[:, -1]
        kwargs = self._model._update_model_kwargs_for_generation(outputs, self._kwargs)
        if kwargs.get("cache") is not self._cache or not self._cache.get_seq_length():
            raise ModelError(
                f"{type(self._model).__name__} keeps what it has read outside of a transformers Cache, so OPERA's "
                "beams cannot share it; use greedy search or plain beam search."
            )
        if repeats > 1:
            rows = torch.arange(0, len(input_ids), repeats)
            self._cache.batch_select_indices(rows)
            logits = logits[rows.to(logits.device)]
            every_row(kwargs, repeats)
        self._kwargs = kwargs
        self._prompt = self._cache.get_seq_length()
        if "logits_to_keep" in kwargs:
            kwargs["logits_to_keep"] = 0
        device = logits.device
        mask = kwargs.get("attention_mask")
        seen = torch.ones(len(logits), self._prompt, dtype=torch.bool, device=device)
        self._seen = seen if mask is None else mask[:, : self._prompt].bool().to(device)
        self._images = torch.nn.functional.pad(images, (0, self._prompt - images.shape[1])).to(device)
        self._device = input_ids.device
        grow(self._cache)
        return logits

    def read(self, fed: Sequence[Fed], choose: Choose, end: Callable[[], int]) -> torch.Tensor:
        """One forward over the tokens of all rows.

        Args:
            fed: for each prompt; all of a prompt's tokens have equally many before them.
            choose: is asked once the attention is known, before the output head runs.
            end: how many slots are in use after that; the others are given up.

        Returns:
            Logits of the kept tokens, shape (prompts, kept, vocabulary); rows that keep fewer have others' in the rest.
        """
        first = self._cache.get_seq_length() - self._prompt
        self._sight = [self._visible(one, first) for one in fed]
        kept: list[torch.Tensor] = []

        def replace(hidden: torch.Tensor) -> torch.Tensor:
            kept.extend(choose(self._attention(fed, first), first))
            index = padded(kept, self._kept).to(hidden.device)[..., None].expand(-1, -1, hidden.shape[-1])
            return hidden.gather(1, index)

        inputs = self._inputs(fed, first)
        with head_reads(self._model, NAME, replace):
            outputs = self._model(**inputs, return_dict=True)
        if any(map(len, kept)):
            keep_slots(self._cache, padded(kept, self._kept), self._width)
        given_up = first + self._width - end()
        if given_up:
            self._cache.crop(-given_up)
        return outputs.logits

    def _visible(self, one: Fed, first: int) -> torch.Tensor:
        """Which slots each token of a row sees, its own included, shape (width, first + width), bool."""
        sight = torch.zeros(self._width, first + self._width, dtype=torch.bool)
        sight[: len(one.tokens)].scatter_(1, one.slots, True)
        sight[:, first:].fill_diagonal_(True)
        return sight

    def _inputs(self, fed: Sequence[Fed], first: int) -> dict[str, Any]:
        count = len(fed)
        tokens = padded([one.tokens for one in fed], self._width).to(self._device)
        depths = torch.tensor([one.slots.shape[-1] for one in fed])
        kwargs = dict(self._kwargs)
        for name in _ALONG_TOKENS:
            if (value := kwargs.get(name)) is not None:
                kwargs[name] = value[..., -1:].expand(*value.shape[:-1], self._width)
        if (positions := kwargs.get("position_ids")) is not None:
            places = positions[..., -1:] + depths[:, None].to(positions.device, positions.dtype)
            kwargs["position_ids"] = places.expand(*positions.shape[:-2], count, self._width)
        inputs: dict[str, Any] = self._model.prepare_inputs_for_generation(tokens, **kwargs)
        masks = {kind: self._mask(fed, window) for kind, window in self._windows.items()}
        return inputs | {"attention_mask": masks if len(masks) > 1 else next(iter(masks.values()))}

    def _mask(self, fed: Sequence[Fed], window: int | None) -> torch.Tensor:
        """0 where a token looks, else the lowest number; shape (prompts, 1, width, prompt + slots)."""
        slots, prompts = torch.stack(self._sight), self._seen
        if window is not None:
            for sight, one in zip(slots, fed, strict=True):
                beyond = one.slots[:, : max(one.slots.shape[1] + 1 - window, 0)]
                sight[: len(one.tokens)].scatter_(1, beyond, False)
            columns = torch.arange(self._prompt, device=prompts.device)
            depths = torch.tensor([one.slots.shape[-1] for one in fed], device=prompts.device)
            prompts = prompts & (columns > (self._prompt + depths - window)[:, None])
        before = prompts[:, None].expand(-1, self._width, -1)
        return additive(torch.cat([before, slots.to(before.device)], dim=-1), self._model.dtype)[:, None]

    def _attention(self, fed: Sequence[Fed], first: int) -> list[Attention]:
        weights, self._weights = self._weights, None
        if weights is None:
            raise ModelError(
                f"the last attention layer of {type(self._model).__name__} shows no weights, so OPERA has nothing to "
                "go by."
            )
        images = (weights[..., : self._prompt] * self._images[:, None].to(weights.device)).sum(dim=-1).double().cpu()
        slots = weights[..., self._prompt :].double().cpu()
        found = []
        for row, one in enumerate(fed):
            count = len(one.tokens)
            before = slots[row, :count].gather(1, one.slots)
            own = slots[row, :count, first:].diagonal()
            found.append(Attention(before, own, images[row, :count]))
        return found


def refuse_model(model: Any, cache: Cache) -> None:
    """Raises:
    ModelError: a plain model cannot read several beams in one row, because of what `cache`, its own kind, or its
        attention is; or processes share its heads.
    """
    name = type(model).__name__
    if is_spread(model):
        raise ModelError(
            f"OPERA looks at all heads of {name}, of which each process has some; load the model on one device, or "
            "over several with device_map."
        )
    if (obstacle := tree_obstacle(model, cache)) is not None:
        raise ModelError(f"OPERA reads all beams as tokens of one row, which {name} cannot, because {obstacle}.")
    if getattr(model.config.get_text_config(decoder=True), "use_bidirectional_attention", None):
        raise ModelError(f"OPERA reads all beams as tokens of one row, but the tokens of {name} see those behind them.")


def every_row(kwargs: dict[str, Any], repeats: int) -> None:
    """Keep one of each `repeats` rows that are the same, in place, of all tensors among a model's arguments."""
    for key, value in kwargs.items():
        if isinstance(value, torch.Tensor) and value.dim():
            along = 1 if key == "position_ids" and value.dim() == 3 else 0
            if value.shape[along] % repeats == 0:
                kwargs[key] = value[:, ::repeats] if along else value[::repeats]


def is_repeated_evenly(model: Any, kwargs: dict[str, Any]) -> bool:
    """Whether `generate` repeats each row of all of a model's arguments for beams, which `every_row` undoes."""
    own, usual = (
        inspect.getattr_static(one, "_expand_inputs_for_generation") for one in (type(model), GenerationMixin)
    )
    return own is usual and kwargs.get("mm_encoder_outputs") is None


def _prepared(cache: Any, sliding: bool) -> Cache:
    """A cache in which layers with windows keep all: a token of another beam would push out one that is needed."""
    if isinstance(cache, QuantizedCache):
        raise ArgumentError("OPERA cannot take tokens back from a quantized cache; use the default cache.")
    if isinstance(cache, Cache) and cache.get_seq_length():
        raise ArgumentError("the cache already holds tokens; pass OPERA an empty cache and the whole prompt.")
    if isinstance(cache, StaticCache):
        warnings.warn("OPERA replaces the static cache by a growing one.", stacklevel=2)
    elif isinstance(cache, Cache) and not sliding:
        return cache
    return GrowingCache()


def _windows(config: Any, cache: Cache) -> dict[str, int | None]:
    """How far back the layers of each type see, by the names of the text config; None is all."""
    window = getattr(config, "sliding_window", None)
    kinds = {bool(sliding) for sliding in cache.is_sliding}
    named = getattr(config, "layer_types", None)
    if len(kinds) == 1 or named is None:
        return {"all": window if kinds == {True} else None}
    return {kind: window if kind == "sliding_attention" else None for kind in set(named)}
