"""The prompts of all views laid out as rows of one length, padded in front."""

from __future__ import annotations

import torch

from truthkit.decoding.engine.image_inputs import placeholders
from truthkit.decoding.engine.image_rows import ImageRows
from truthkit.decoding.engine.layout import Prompt
from truthkit.decoding.engine.view_group import ViewGroup
from truthkit.errors import ArgumentError
from truthkit.hf.room import context_length


def lay_out(
    group: ViewGroup,
    images: ImageRows,
    ids: torch.Tensor,
    mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    *,
    gaps: bool,
) -> Prompt:
    """See `RowGroup.begin`; `images` are those of the prompts, where there are some.

    Raises:
        ArgumentError: a prompt is empty, too long, padded on the right, or lacks what a view needs of it.
    """
    count = len(group.views)
    batch, length = ids.shape[:2]
    if length == 0 or batch == 0:
        raise ArgumentError(f"the prompt is empty: input_ids has shape {tuple(ids.shape)}; pass at least one token.")
    mask = torch.ones(batch, length, dtype=torch.long, device=ids.device) if mask is None else mask.long()
    if group.same_prompt:
        by_hand = ids.dim() == 2 and group.vision is not group.model  # embeddings will be wanted
        wide_ids = ids.repeat(count, 1) if by_hand else None
        wide_mask, offsets = mask.repeat(count, 1), None
    else:
        if ids.dim() != 2:
            raise ArgumentError("inputs_embeds was given, but a view with another prompt needs input_ids.")
        if bool((mask[:, -1] == 0).any() if gaps else (mask.diff(dim=1) < 0).any()):
            raise ArgumentError(
                "attention_mask has zeros after ones, but a view with another prompt needs left padding; set "
                'padding_side="left" in the tokenizer.'
            )
        wide_ids, wide_mask = _padded(group, ids, mask)
        counts = wide_mask.sum(dim=1, keepdim=True)
        offsets = counts - mask.sum(dim=1, keepdim=True).repeat(count, 1)
    limit = context_length(group.model)
    longest = int(wide_mask.sum(dim=1).max())
    if limit and longest > limit:
        raise ArgumentError(
            f"a prompt has {longest} tokens (the longest of {count} views), but {type(group.model).__name__} "
            f"has room for {limit} (max_position_embeddings); shorten it."
        )
    every = ids.repeat(count, *[1] * (ids.dim() - 1)) if wide_ids is None else wide_ids
    axes = None
    wanted = wide_ids is not None or position_ids is None
    if wanted and ids.dim() == 2 and hasattr(group.vision.base_model, "get_rope_index"):
        axes = _axes(group, images, every, wide_mask, batch)
    padded = not bool(wide_mask.all())
    of_images = _image_tokens(group, every) if group.edits_attention else None
    return Prompt(batch, length, wide_ids, wide_mask, offsets, padded, axes, images=of_images)


def _image_tokens(group: ViewGroup, ids: torch.Tensor) -> torch.Tensor:
    """Which tokens of all views' prompts, `ids`, are an image's."""
    found = placeholders(group.vision, ids) if ids.dim() == 2 else torch.zeros(1, dtype=torch.bool)
    if not bool(found.any()):
        raise ArgumentError(
            f"a view edits its attention to images, but no prompt of {type(group.vision).__name__} holds one (there "
            f"are {'no placeholders in input_ids' if ids.dim() == 2 else 'inputs_embeds without input_ids'}); pass "
            "the processor's outputs whole."
        )
    return found


def _axes(group: ViewGroup, images: ImageRows, ids: torch.Tensor, mask: torch.Tensor, batch: int) -> torch.Tensor:
    """Positions in time, height and width of an image-text model's prompts, shape (3, rows, length)."""
    types = placeholders(group.vision, ids).int()
    grids = images.input("image_grid_thw", batch) if images.ready else None
    positions, _ = group.vision.base_model.get_rope_index(ids, types, image_grid_thw=grids, attention_mask=mask)
    return positions


def _padded(group: ViewGroup, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    plain = [row[kept].tolist() for row, kept in zip(ids, mask.bool(), strict=True)]
    rows = [row for view in group.views for row in (view.prompt(plain) if view.prompt else plain)]
    if not all(rows):
        raise ArgumentError("a view's prompt is empty: nothing is left of a prompt when its images or context go.")
    length = max(ids.shape[1], max(map(len, rows)))
    wide_ids, wide_mask = ids.new_zeros(len(rows), length), mask.new_zeros(len(rows), length)
    for i, row in enumerate(rows):
        wide_ids[i, length - len(row) :] = torch.tensor(row, device=ids.device)
        wide_mask[i, length - len(row) :] = 1
    return wide_ids, wide_mask
