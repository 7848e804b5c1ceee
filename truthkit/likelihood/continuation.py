"""Rows of text that are read once and continued in several ways, as a prompt is by every answer to it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from truthkit.hf.sites import input_device


@dataclass(frozen=True)
class Rows:
    """Rows whose text so far has been read.

    Attributes:
        cache: their keys and values. Reading on changes it: read on from a `fork` where the rows are still needed.
        mask: (rows, columns), 1 where a column is no padding.
    """

    cache: Any
    mask: torch.Tensor

    @property
    def has_plain_layers(self) -> bool:
        """Whether all layers hold every column, and make new tensors when they grow."""
        return all(type(layer) is DynamicLayer for layer in self.cache.layers)

    def fork(self) -> Rows:
        """The same rows, to be continued without a change to these."""
        if not self.has_plain_layers:
            return copy.deepcopy(self)
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        return Rows(cache, self.mask)

    def repeated(self, times: int) -> Rows:
        """Each row so many times, side by side, without a change to these."""
        cache = self.fork().cache
        cache.batch_repeat_interleave(times)
        return Rows(cache, self.mask.repeat_interleave(times, dim=0))


class Reader:
    """Reads rows of token ids with a model, with whatever is on: adapters, hooks, a `with` block around it.

    Args:
        model: the model, without a PEFT wrapper.
    """

    def __init__(self, model: Any):
        self.model = model
        accepted = inspect.signature(model.forward).parameters
        self._numbered = "position_ids" in accepted
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def read(
        self, texts: Sequence[list[int]], after: Rows | None = None, *, every_token: bool = False
    ) -> tuple[Rows, torch.Tensor]:
        """A text for every row, padded on the left, behind what was read before; `after` is used up.

        Returns:
            The rows, and the logits of each text's last token, (rows, vocabulary), or of every one,
            (rows, tokens, vocabulary).
        """
        device = input_device(self.model)
        width = max(map(len, texts))
        ids = torch.tensor([[text[0]] * (width - len(text)) + text for text in texts], device=device)
        real = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in texts], device=device)
        mask = real if after is None else torch.cat([after.mask, real], dim=1)
        options: dict[str, Any] = {} if every_token else dict(self._last_only)
        if self._numbered:
            options["position_ids"] = (mask.cumsum(dim=1) - 1).clamp_min(0)[:, -width:]
        with torch.no_grad():
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                cache=None if after is None else after.cache,
                use_cache=True,
                **options,
            )
        return Rows(output.cache, mask), output.logits if every_token else output.logits[:, -1]

    def beginning(self, texts: Sequence[list[int]]) -> Rows | None:
        """One row with what all texts begin with; None where there is nothing to share.

        Padding then stands between it and the rest, which models that count columns can't have: those without position
        ids, and those with a sliding window.
        """
        same = 0
        least = min(map(len, texts)) - 1
        while same < least and len({text[same] for text in texts}) == 1:
            same += 1
        if not self._numbered or len(texts) == 1 or same < 2:
            return None
        rows, _ = self.read([texts[0][:same]])
        return rows if rows.has_plain_layers else None

    def read_whole(self, texts: Sequence[list[int]], beginning: Rows | None) -> Rows:
        """A row for every text; `beginning` is what they begin with, where it has been read, and is not changed."""
        if beginning is None:
            return self.read(texts)[0]
        known = beginning.mask.shape[1]
        return self.read([text[known:] for text in texts], beginning.repeated(len(texts)))[0]
