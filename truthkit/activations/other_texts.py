"""Texts that are read while another is generated: of views that run apart, of logits processors, of short views.

Each has a prompt of its own, which is what its first forward reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch


@dataclass
class Text:
    """A batch of texts that is read forward by forward.

    Attributes:
        start: what holds for the whole of it, from its first forward on.
        columns: how many were read.
        began: whether any were.
        ids: of its first forward, (rows, width), where it is read without a cache.
    """

    start: dict[str, Any] = field(default_factory=dict)
    columns: int = 0
    began: bool = False
    ids: torch.Tensor | None = None


class OtherTexts:
    """Those of one call of `generate`: known by their caches, or by how they begin."""

    def __init__(self) -> None:
        self._with_cache: WeakKeyDictionary[Any, Text] = WeakKeyDictionary()
        self._without_cache: list[Text] = []

    def of(self, cache: Any, ids: torch.Tensor | None) -> Text | None:
        """The text of a forward, another one where it has not been seen; None if it goes on from tokens of no other."""
        if cache is not None:
            if cache not in self._with_cache and _holds_tokens(cache):
                return None
            return self._with_cache.setdefault(cache, Text())
        for text in self._without_cache:
            if ids is not None and text.ids is not None and _begins_with(ids, text.ids):
                return text
        self._without_cache.append(Text(ids=ids))
        return self._without_cache[-1]


def _holds_tokens(cache: Any) -> bool:
    layers = getattr(cache, "layers", ())
    if layers and not any(hasattr(layer, "get_seq_length") for layer in layers):
        return bool(cache.has_previous_state())
    return bool(int(cache.get_seq_length()))


def _begins_with(ids: torch.Tensor, beginning: torch.Tensor) -> bool:
    width = beginning.shape[1]
    return len(ids) == len(beginning) and ids.shape[1] >= width and torch.equal(ids[:, :width], beginning)
