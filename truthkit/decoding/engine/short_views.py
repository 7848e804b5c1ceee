"""Views whose prompts are much shorter than the longest one read them in a forward of their own.

In one batch all prompts take as long as the longest, and a view without the image or the passage would be mostly
padding. Here views of about one length are read together, and afterwards their rows join the others: in the logits,
and in the cache as a part of their own (`truthkit.hf.parted_cache`), so that time and memory follow each view's length.
Every further token is one forward of all rows as ever. Where the model's attention cannot be done in parts, or they
would save little, the short rows are padded in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache

from truthkit.decoding.engine.row_group import RowGroup
from truthkit.hf.growing_cache import GrowingLayer
from truthkit.hf.packed_attention import is_packed
from truthkit.hf.parted_cache import PartedLayer, Parting, takes_parts, watched_cache
from truthkit.hf.sites import text_decoder

_WORTH = 64
"""How many positions must be saved, over all rows."""

_WORTH_A_PART = 1 << 17
"""How many numbers must be saved among the keys of a layer: an attention call of its own takes as long as these and
their values."""

_SHORT = 0.75
"""A view is short below this part of the longest prompt that it could be read with."""

_PER_TOKEN = {"input_ids", "inputs_embeds", "attention_mask", "token_type_ids", "mm_token_type_ids"}


@dataclass(frozen=True)
class ShortViews:
    """The views of a batch that were read apart, after their prompts.

    Attributes:
        parting: of all rows; its first part is the main view's, which is read last.
        logits: of the other parts, each of shape (rows, positions, vocabulary).
        caches: with their rows.
        packed: whether attention runs packed, without which nothing can be in parts.
    """

    parting: Parting
    logits: Sequence[torch.Tensor]
    caches: Sequence[Cache]
    packed: bool

    @property
    def last(self) -> tuple[int, ...]:
        """The numbers of the views that are left for the last forward."""
        return self.parting.views[0]

    def join(self, outputs: Any, cache: Any, positions: int) -> None:
        """Put the rows that were read apart among those of `outputs` and `cache`, which are the main part's."""
        every = (outputs.logits, *self.logits)
        outputs.logits = self.parting.together([logits[:, -positions:] for logits in every])
        in_parts = self.packed and all(takes_parts(other) for other in self.caches)
        for number, mine in enumerate(cache.layers):
            others: Any = [other.layers[number] for other in self.caches]
            layer = PartedLayer(self.parting, [mine, *others])
            worth = self.parting.saved * mine.keys[0, :, 0].numel() >= _WORTH_A_PART
            cache.layers[number] = layer if in_parts and worth else layer.whole()


def read_short(
    group: RowGroup, wide: dict[str, Any], cache: Any, run: Callable[..., Any]
) -> tuple[dict[str, Any], ShortViews | None]:
    """The arguments of the forward that is left, for the main view and others of its length, and what was read apart
    if there was something.

    Args:
        group: the views, at the prompt.
        wide: the arguments of a forward of all rows.
        cache: the one that the rows are to share in the end.
        run: a forward of the model as it is.
    """
    keep, mask = wide.get("logits_to_keep"), wide.get("attention_mask")
    plain = cache is not None and all(type(layer) is GrowingLayer for layer in cache.layers) and cache.layers
    if group.in_step or not plain or mask is None or group.same_prompt or not isinstance(keep, int) or keep < 1:
        return wide, None
    if group.group.adapters or group.exits:
        return wide, None
    batch, columns = group.prompt.batch, mask.shape[1]
    lengths = mask.view(group.rows, batch, columns).sum(dim=2).tolist()
    longest, shortest = [max(rows) for rows in lengths], [min(rows) for rows in lengths]
    parts = _parts(longest, batch)
    if len(parts) == 1 or group.attention.views() - set(parts[0]):
        return wide, None
    widths = [max(longest[view] for view in part) for part in parts]
    packed = is_packed(text_decoder(group.model))
    own = columns - group.prompt.extra if packed else columns
    widths[0] = max(widths[0], own)
    padded = [
        not group.nothing_hidden_later or min(shortest[view] for view in part) < width
        for part, width in zip(parts, widths, strict=True)
    ]
    parting = Parting(parts, batch, [columns - width for width in widths], padded)
    caches = [watched_cache(len(cache.layers)) for _ in parts[1:]]
    logits = [
        run(**_some(group, wide, part, width) | {"cache": apart, "use_cache": True, "return_dict": True}).logits
        for part, width, apart in zip(parts[1:], widths[1:], caches, strict=True)
    ]
    return _some(group, wide, parts[0], widths[0]), ShortViews(parting, logits, caches, packed)


def _parts(lengths: Sequence[int], batch: int) -> list[list[int]]:
    """Views of about one length, with the main one's part in front."""
    order = sorted(range(len(lengths)), key=lambda view: -lengths[view])
    parts = [[order[0]]]
    for place, view in enumerate(order[1:], start=1):
        width = lengths[parts[-1][0]]
        saved = (width - lengths[view]) * batch * (len(order) - place)
        if lengths[view] < _SHORT * width and saved >= _WORTH:
            parts.append([view])
        else:
            parts[-1].append(view)
    return sorted(map(sorted, parts))


def _some(group: RowGroup, wide: dict[str, Any], views: Sequence[int], width: int) -> dict[str, Any]:
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
