"""Where the prompts of all views lie in the rows of a group, and the positions of their tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

_NOT_PER_ROW = {"input_ids", "attention_mask", "position_ids", "logits_to_keep", "cache_position"}


@dataclass(frozen=True)
class Prompt:
    """The prompt of every row of a group, left-padded to one length."""

    batch: int
    length: int
    ids: torch.Tensor | None
    mask: torch.Tensor
    offsets: torch.Tensor | None
    padded: bool
    axes: torch.Tensor | None = None
    """Positions on several axes, shape (axes, rows, length), where the model has such and needs them from here."""
    whole: int = 0
    """The length of the main view's prompt with what followed in `RowGroup.prompt_goes_on`; 0 if nothing did."""
    images: torch.Tensor | None = None
    """Which tokens are an image's, bool, shape (rows, length), where a view edits its attention to them."""

    @property
    def extra(self) -> int:
        """How many more cache slots a row takes than the main view's own prompt."""
        return self.mask.shape[1] - self.length

    @property
    def answer_start(self) -> int:
        """How many columns of the main view come before its answer."""
        return self.whole or self.length

    def select(self, batch: int, index: torch.Tensor) -> Prompt:
        """The prompt of `batch` rows per view, whose row `i` of all is row `index[i]` of these."""

        def taken(tensor: torch.Tensor | None, dim: int = 0) -> torch.Tensor | None:
            return None if tensor is None else tensor.index_select(dim, index.to(tensor.device))

        mask, axes = taken(self.mask), taken(self.axes, 1)
        assert mask is not None
        ids, offsets, images = taken(self.ids), taken(self.offsets), taken(self.images)
        return Prompt(batch, self.length, ids, mask, offsets, self.padded, axes, images=images)


def along_axes(prompt: torch.Tensor, mask: torch.Tensor, width: int, given: torch.Tensor | None) -> torch.Tensor:
    """Positions of the last `width` tokens on several axes: the prompt's, and one more for each token after it.

    Args:
        prompt: shape (axes, rows, length).
        mask: over all tokens so far, shape (rows, total).
        width: how many are asked for.
        given: the main view's; four axes begin with the plain position among the text.
    """
    text = (mask.cumsum(dim=1) - 1).clamp_min_(0)
    length = prompt.shape[2]
    jump = prompt.amax(dim=(0, 2))[:, None] - text[:, length - 1 : length]
    tail = (text[:, length:] + jump).expand(len(prompt), -1, -1)
    every = torch.cat([prompt, tail], dim=2)
    if given is not None and given.dim() == 3 and len(given) > len(prompt):
        every = torch.cat([text[None], every])
    return every[:, :, -width:]


def repeated(kwargs: Mapping[str, Any], batch: int, count: int) -> dict[str, torch.Tensor]:
    """Those of a forward's arguments that have an entry per row and nothing special about them, for all rows.

    Args:
        kwargs: for the main view's rows.
        batch: how many these are.
        count: how many views there are.
    """
    tensors = {name: one for name, one in kwargs.items() if isinstance(one, torch.Tensor) and one.dim()}
    return {
        name: one.repeat(count, *[1] * (one.dim() - 1))
        for name, one in tensors.items()
        if name not in _NOT_PER_ROW and len(one) == batch
    }


def repeated_positions(positions: torch.Tensor, batch: int, count: int) -> torch.Tensor:
    """The main view's positions, (batch or 1, width) or (axes, batch, width), for the rows of `count` views."""
    if positions.dim() == 2:
        return positions.expand(batch, -1).repeat(count, 1)
    return positions.repeat(1, count, 1)
