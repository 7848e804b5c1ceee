"""Rows of a generation loop followed by their tokens alone, for forwards that run beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from truthkit.decoding.engine.companion import Companion
from truthkit.decoding.engine.image_inputs import placeholders
from truthkit.decoding.engine.pictures import Pictures
from truthkit.decoding.engine.row_group import RowGroup
from truthkit.decoding.engine.view import ViewLogits
from truthkit.errors import ArgumentError

if TYPE_CHECKING:
    from truthkit.hf.wrapping import GenerativeModel


class PrefixMatch:
    """Follows the rows of a generation loop by their tokens alone.

    Args:
        model: the model of the loop.
        companions: groups whose caches are reordered and cut so that they hold the longest known prefix of every row.
        attention_mask: 2-D mask of the prompt. None takes leading `pad_token_id` tokens for padding.
        pad_token_id: that token; None for no padding.
        images: the prompts' images, for an image-text model.
    """

    def __init__(
        self,
        model: GenerativeModel,
        companions: Sequence[Companion],
        attention_mask: torch.Tensor | None,
        pad_token_id: int | None,
        images: Pictures | None = None,
    ):
        self._model, self._companions, self._images = model, companions, images
        self._prompt_mask, self._pad = attention_mask, pad_token_id
        self._ids: torch.Tensor | None = None
        self._mask: torch.Tensor | None = None
        self._length = 0

    def advance(self, ids: torch.Tensor) -> list[list[ViewLogits]]:
        """Every companion's views at the last position of `ids`, shape (batch, length)."""
        past, parents = self._known(ids)
        if past == 0 or not all(companion.can_go_back_to(past) for companion in self._companions):
            past = 0
            self._length = ids.shape[1]
            self._mask = self._mask_of(ids)
            for companion in self._companions:
                companion.reset()
                self._show_images(companion.group, ids, self._mask)
                companion.begin(ids, self._mask, gaps=True)
        elif parents is not None:
            for companion in self._companions:
                companion.reorder(parents)
            self._mask = None if self._mask is None else self._mask[parents]
        self._ids = ids.clone()
        mask = positions = None
        if self._mask is not None:
            mask = torch.nn.functional.pad(self._mask, (0, ids.shape[1] - self._length), value=1)
            positions = (mask.cumsum(dim=1) - 1).clamp_min_(0)[:, past:]
        new = ids[:, past:]
        return [c.forward(new, mask, positions, past=past, keep=1, device=ids.device) for c in self._companions]

    def _known(self, ids: torch.Tensor) -> tuple[int, torch.Tensor | None]:
        """How many tokens of every row are cached, fewer than the prompt's start anew; and in which cached row, None if
        each is in its own, as without beams. To know this costs one wait for the device, two with beams that moved.
        """
        before = self._ids
        if before is None or len(before) != len(ids):
            return 0, None
        shared = min(before.shape[1], ids.shape[1] - 1)
        if shared < self._length:
            return 0, None
        ids, before = ids[:, :shared], before[:, :shared]
        if torch.equal(ids, before):
            return shared, None
        same = (ids[:, None] == before[None]).long().cumprod(dim=-1).sum(dim=-1)
        # the row's own place wins a tie, so that rows which never part keep their order
        own = torch.eye(len(ids), dtype=same.dtype, device=ids.device)
        parents = (2 * same + own).argmax(dim=1)
        known = int(same.gather(1, parents[:, None]).min())
        return (known, parents) if known >= self._length else (0, None)

    def _show_images(self, group: RowGroup, ids: torch.Tensor, mask: torch.Tensor | None) -> None:
        if self._images is None and not group.images.changed and bool(placeholders(self._model, ids).any()):
            raise ArgumentError(
                "the prompt holds images, which a logits processor does not see; pass them to it as images=..."
            )
        copies = len(ids) // len(self._images) if self._images and len(ids) % len(self._images) == 0 else 1
        inputs = self._images.inputs(ids.device) if self._images else {}
        group.images.encode(inputs, ids[::copies], None if mask is None else mask[::copies])

    def _mask_of(self, ids: torch.Tensor) -> torch.Tensor | None:
        """The mask of prompts, (batch, length), int64; None if nothing is padding."""
        if self._prompt_mask is not None:
            mask = self._prompt_mask.to(ids.device).long()
            if len(ids) % len(mask) or mask.shape[1] != self._length:
                raise ArgumentError(
                    f"attention_mask has shape {tuple(mask.shape)}, but the prompt has {len(ids)} rows of "
                    f"{self._length} tokens; pass the mask that goes with generate's input_ids."
                )
            mask = mask.repeat_interleave(len(ids) // len(mask), dim=0)
        elif self._pad is None:
            return None
        else:
            of_image = placeholders(self._model, ids)  # padding can stand behind it
            mask = (of_image | (((ids != self._pad) & ~of_image).cumsum(dim=1) > 0)).long()
            mask[:, -1:] = 1
        return None if bool(mask.all()) else mask
