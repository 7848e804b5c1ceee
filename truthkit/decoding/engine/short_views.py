"""Views whose prompts are much shorter than the others' read them in a forward of their own.

In one batch all prompts take as long as the longest, and a view without the image or the passage would be mostly
padding. Here it is read alone; afterwards its rows join those of the other views, in the logits and in the cache, and
every further token is one forward of all rows as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import DynamicCache

from truthkit.decoding.engine.row_group import RowGroup
from truthkit.hf.growing_cache import GrowingLayer

_WORTH = 64
"""How many positions must be saved, over all rows."""

_SHORT = 0.75
"""A view is short below this part of the longest prompt."""

_PER_TOKEN = {"input_ids", "inputs_embeds", "attention_mask", "token_type_ids", "mm_token_type_ids"}


@dataclass(frozen=True)
class ShortViews:
    """The short views of a batch after their prompts.

    Attributes:
        views: their numbers.
        logits: (rows, positions, vocabulary).
        cache: with their rows.
    """

    views: tuple[int, ...]
    logits: torch.Tensor
    cache: Any

    def others(self, count: int) -> tuple[int, ...]:
        """The numbers of the long views, of `count` in all."""
        return tuple(view for view in range(count) if view not in self.views)

    def join(self, outputs: Any, cache: Any, count: int, positions: int) -> None:
        """Put the short views' rows among those of the others, of `count` views in all."""
        order = _order(count, self.views)
        outputs.logits = _joined(outputs.logits[:, -positions:], self.logits[:, -positions:], order)
        for mine, theirs in zip(cache.layers, self.cache.layers, strict=True):
            for name in ("keys", "values"):
                long, short = getattr(mine, name), getattr(theirs, name)
                short = torch.nn.functional.pad(short, (0, 0, long.shape[-2] - short.shape[-2], 0))
                setattr(mine, name, _joined(long, short, order))


def read_short(
    group: RowGroup, wide: dict[str, Any], cache: Any, run: Callable[..., Any]
) -> tuple[dict[str, Any], ShortViews | None]:
    """The arguments of the forward that is left, for the long views, and the short views if there are any.

    Args:
        group: the views, at the prompt.
        wide: the arguments of a forward of all rows.
        cache: the one that the rows are to share in the end.
        run: a forward of the model as it is.
    """
    keep, mask = wide.get("logits_to_keep"), wide.get("attention_mask")
    plain = cache is not None and all(type(layer) is GrowingLayer for layer in cache.layers) and cache.layers
    if group.in_step or not plain or mask is None or keep != 1 or group.same_prompt:
        return wide, None
    if group.group.adapters or group.exits:
        return wide, None
    batch, length = group.prompt.batch, mask.shape[1]
    lengths = mask.view(group.rows, batch, length).sum(dim=2).amax(dim=1).tolist()
    short = tuple(view for view in range(1, group.rows) if lengths[view] < _SHORT * length)
    if group.attention.views() & set(short):
        return wide, None
    if sum(length - lengths[view] for view in short) * batch < _WORTH or lengths[0] < _SHORT * length:
        return wide, None
    width = max(lengths[view] for view in short)
    own = DynamicCache(config=group.model.config.get_text_config(decoder=True))
    outputs = run(**_some(group, wide, short, width) | {"cache": own, "use_cache": True, "return_dict": True})
    rest = tuple(view for view in range(group.rows) if view not in short)
    return _some(group, wide, rest, length), ShortViews(short, outputs.logits, own)


def _some(group: RowGroup, wide: dict[str, Any], views: tuple[int, ...], width: int) -> dict[str, Any]:
    """The arguments for some of the views, and the last `width` positions of them."""
    batch, rows = group.prompt.batch, group.rows * group.prompt.batch
    index = torch.cat([torch.arange(view * batch, (view + 1) * batch) for view in views])
    some = dict(wide)
    for name, value in wide.items():
        if not isinstance(value, torch.Tensor):
            continue
        at = index.to(value.device)
        if name == "position_ids":
            some[name] = value.index_select(-2, at)[..., -width:]
        elif name in _PER_TOKEN:
            some[name] = value[at][:, -width:]
        elif value.dim() and len(value) == rows:
            some[name] = value[at]
    if "mm_encoder_outputs" in wide:
        images = group.images.output(batch, views)
        some["mm_encoder_outputs"] = None if images is None else {"image": images}
    return some


def _order(count: int, short: tuple[int, ...]) -> list[tuple[bool, int]]:
    """For each view whether it is short, and its place among those of its kind."""
    seen = {True: 0, False: 0}
    order = []
    for view in range(count):
        kind = view in short
        order.append((kind, seen[kind]))
        seen[kind] += 1
    return order


def _joined(long: torch.Tensor, short: torch.Tensor, order: list[tuple[bool, int]]) -> torch.Tensor:
    kinds = [kind for kind, _ in order]
    parts = {False: long.chunk(kinds.count(False)), True: short.chunk(kinds.count(True))}
    return torch.cat([parts[kind][place] for kind, place in order])
