"""The rows of views that look at their images otherwise than the main one, in each forward."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch

from truthkit.decoding.engine.layout import Prompt
from truthkit.decoding.engine.view import AttentionEdit
from truthkit.decoding.engine.view_group import ViewGroup
from truthkit.errors import ModelError
from truthkit.hf.attention import Asked, Queries, asking
from truthkit.hf.ownership import Block
from truthkit.hf.sites import text_decoder
from truthkit.hf.spread import is_spread


class AttentionRows:
    """The edits of a group's views, aimed at the rows of one forward after the other."""

    block: Block

    def __init__(self, group: ViewGroup):
        self._group = group
        self._edits = [(view, edit) for view, one in enumerate(group.views) for edit in one.attention]
        self._aimed: list[_Aimed] = []
        self._counts: torch.Tensor | None = None

    def __bool__(self) -> bool:
        return bool(self._edits)

    def views(self) -> set[int]:
        """The numbers of the views that edit."""
        return {view for view, _ in self._edits}

    def attach(self, stack: ExitStack, block: Block) -> None:
        """Act on the model's attention layers, in the threads of `block`; `stack` ends it.

        Raises:
            ModelError: weights of all heads are wanted, and processes share them.
        """
        if not self._edits:
            return
        if any(edit.hidden for _, edit in self._edits) and is_spread(self._group.model):
            raise ModelError(
                f"a view of {type(self._group.model).__name__} is led by the attention of all heads, of which each "
                "process has some; load the model on one device, or over several with device_map."
            )
        self.block = block
        stack.enter_context(asking(text_decoder(self._group.model), self))

    def told(self, lengths: Sequence[int] | None, mask: torch.Tensor | None, width: int) -> None:
        """Take in how many tokens of each row are its prompt, where somebody says so of the next forward.

        Args:
            lengths: of the main view's rows; None: nobody does.
            mask: of all of their tokens so far; None for no padding.
            width: how many tokens the forward has.
        """
        self._counts = None
        if lengths is not None and mask is not None:
            read = mask.sum(dim=1)
            self._counts = (read - torch.tensor(lengths, device=read.device) + 1).clamp(1, width)

    def rest(self) -> None:
        """Ask for nothing in the next forward."""
        self._aimed = []

    def aim(self, prompt: Prompt, views: Sequence[int], past: int, width: int, keep: int | torch.Tensor | None) -> None:
        """Say what the next forward holds.

        Args:
            prompt: of all views.
            views: the numbers of the views whose rows it has, in order.
            past: how many of the main view's tokens came before.
            width: how many tokens it has.
            keep: its `logits_to_keep` outside of `generate`; within, None.
        """
        assert prompt.images is not None
        batch, before = prompt.batch, past + prompt.extra if past else 0
        columns = before + width
        counts, self._counts = self._counts, None
        if counts is not None:
            keep = int(counts.max())
        elif keep is None:
            keep = columns - max(before, prompt.answer_start + prompt.extra - 1)
        elif isinstance(keep, int) and not keep:
            keep = width if past else 1
        queries = keep if isinstance(keep, torch.Tensor) else slice(-keep, None)
        self._aimed = []
        for view, edit in self._edits:
            start = list(views).index(view) * batch
            own = prompt.images[view * batch : (view + 1) * batch]
            own = torch.nn.functional.pad(own, (0, columns - own.shape[1]))
            self._aimed.append(_Aimed(edit, slice(start, start + batch), own, queries, counts))

    def asked(self, layer: int, queries: int, keys: int) -> list[Asked]:
        """See `truthkit.hf.attention.Asking`."""
        found = [aimed.asked(layer, queries, keys) for aimed in self._aimed]
        return [one for one in found if one is not None]


class _Aimed:
    """One view's edit in one forward.

    Args:
        edit: what is to be done.
        rows: in the batch.
        images: which of their columns are image tokens, shape (rows, columns).
        queries: the asked ones.
        counts: how many of these, the last ones, are asked of each row; None: all.
    """

    def __init__(
        self,
        edit: AttentionEdit,
        rows: slice,
        images: torch.Tensor,
        queries: Queries,
        counts: torch.Tensor | None,
    ):
        self._edit, self._rows, self._images, self._queries, self._counts = edit, rows, images, queries, counts
        self._hidden: torch.Tensor | None = None
        self._of_keys: dict[int, torch.Tensor] = {}

    def asked(self, layer: int, queries: int, keys: int) -> Asked | None:
        edit = self._edit
        if layer == edit.seen_at:
            return Asked(self._rows, self._queries, shown=self._see)
        if layer not in edit.layers:
            return None
        if edit.hidden is not None:
            hidden = _columns(self._of_every_query(queries), keys)
            return Asked(self._rows, self._queries, hidden=lambda rows: hidden[self._within(rows)])
        return Asked(self._rows, self._queries, scores=self._change)

    def _change(self, scores: torch.Tensor, rows: slice) -> torch.Tensor:
        assert self._edit.scores is not None
        within = self._within(rows)
        changed = self._edit.scores(scores, self._marks(scores)[within, None])
        if self._counts is None:
            return changed
        behind = torch.arange(scores.shape[2], 0, -1, device=scores.device)
        asked = behind <= self._counts[within, None].to(scores.device)
        return torch.where(asked[:, None, :, None], changed, scores)

    def _see(self, weights: torch.Tensor, rows: slice) -> None:
        assert self._edit.hidden is not None
        count, columns = self._images.shape
        before = max(columns - weights.shape[-1], 0)
        every = torch.nn.functional.pad(weights[..., : columns - before], (before, 0))  # none beyond a window
        hidden = self._edit.hidden(every, self._marks(every)[self._within(rows)])
        if self._hidden is None:
            self._hidden = hidden.new_zeros(count, *hidden.shape[1:])
        self._hidden[self._within(rows)] = hidden

    def _marks(self, scores: torch.Tensor) -> torch.Tensor:
        """Which keys of a layer are image tokens, shape (rows, 1, keys)."""
        keys = scores.shape[-1]
        if keys not in self._of_keys:
            self._of_keys[keys] = _columns(self._images, keys)[:, None]
        return self._of_keys[keys].to(scores.device)

    def _of_every_query(self, count: int) -> torch.Tensor:
        """The hidden columns of all queries; those before the first asked one see as it does, but each sees itself."""
        assert self._hidden is not None
        if self._hidden.shape[1] == count:
            return self._hidden
        every = torch.arange(count, device=self._hidden.device)
        asked = self._queries.to(every.device) if isinstance(self._queries, torch.Tensor) else every[self._queries]
        as_asked = torch.searchsorted(asked, every).clamp_max(len(asked) - 1).expand(len(self._hidden), -1)
        if self._counts is not None:
            as_asked = as_asked.maximum(len(asked) - self._counts[:, None].to(every.device))
        hidden = self._hidden.take_along_dim(as_asked[..., None], dim=1)
        hidden[:, every, every + hidden.shape[-1] - count] = False
        self._hidden = hidden
        return hidden

    def _within(self, rows: slice) -> slice:
        return slice(rows.start - self._rows.start, rows.stop - self._rows.start)


def _columns(marks: torch.Tensor, keys: int) -> torch.Tensor:
    """Marks on all columns as marks on a layer's keys: of a window the last ones; a static cache has room behind."""
    marks = marks[..., max(marks.shape[-1] - keys, 0) :]
    return torch.nn.functional.pad(marks, (0, keys - marks.shape[-1]))
