"""The rows of views that look at their images otherwise than the main one, in each forward."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch

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

    def aim(
        self, views: Sequence[int], batch: int, images: torch.Tensor | None, queries: Queries, columns: int
    ) -> None:
        """Say what the next forward holds.

        Args:
            views: the numbers of the views whose rows it has, in order.
            batch: rows per view.
            images: of the prompts of all views, as in `Prompt`.
            queries: the asked ones.
            columns: how many tokens each row has afterwards.
        """
        self._aimed = []
        for view, edit in self._edits if batch else ():
            assert images is not None
            start = list(views).index(view) * batch
            own = images[view * batch : (view + 1) * batch]
            own = torch.nn.functional.pad(own, (0, columns - own.shape[1]))
            self._aimed.append(_Aimed(edit, slice(start, start + batch), own, queries))

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
    """

    def __init__(self, edit: AttentionEdit, rows: slice, images: torch.Tensor, queries: Queries):
        self._edit, self._rows, self._images, self._queries = edit, rows, images, queries
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
        return self._edit.scores(scores, self._marks(scores)[self._within(rows), None])

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
        hidden = self._hidden[:, torch.searchsorted(asked, every).clamp_max(len(asked) - 1)]
        hidden[:, every, every + hidden.shape[-1] - count] = False
        self._hidden = hidden
        return hidden

    def _within(self, rows: slice) -> slice:
        return slice(rows.start - self._rows.start, rows.stop - self._rows.start)


def _columns(marks: torch.Tensor, keys: int) -> torch.Tensor:
    """Marks on all columns as marks on a layer's keys: of a window the last ones; a static cache has room behind."""
    marks = marks[..., max(marks.shape[-1] - keys, 0) :]
    return torch.nn.functional.pad(marks, (0, keys - marks.shape[-1]))
