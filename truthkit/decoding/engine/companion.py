"""Views with a forward and a cache of their own: a separate amateur model, or a logits processor's views."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from truthkit.decoding.engine.image_inputs import token_types
from truthkit.decoding.engine.row_group import RowGroup
from truthkit.decoding.engine.view import ViewLogits
from truthkit.errors import ModelError
from truthkit.hf.branches import BranchedCache
from truthkit.hf.growing_cache import GrowingCache
from truthkit.hf.ownership import Block
from truthkit.hf.sites import input_device, takes_positions_to_keep

_MOST_PAST = 256
"""For how many tokens a sliding window keeps what it has left behind, in case they are taken back."""


class Companion:
    """A `RowGroup` beside the generation loop, following its tokens.

    The cache is always cut back to the tokens the loop has accepted, so rejected assistant tokens leave no trace, and
    `reorder` lets it follow beams.
    """

    def __init__(self, group: RowGroup):
        self.group = group
        self.cache: Any = None
        self.length = 0
        self._cropped_to = 0
        self._owed: tuple[torch.Tensor, torch.Tensor | None] | None = None

    def reset(self) -> None:
        """Forget the cache and the prompt."""
        self.cache, self.length, self._cropped_to, self._owed = None, 0, 0, None
        self.group.end()

    def can_go_back_to(self, past: int) -> bool:
        """Whether the cache can be cut back to its first `past` tokens: sliding windows forget, recurrent states
        merge.
        """
        if self.cache is None or past >= self.length:
            return True
        if any(getattr(layer, "is_sliding", False) for layer in self.cache.layers):
            return past >= self._cropped_to
        return bool(self.cache.is_croppable)

    def begin(self, ids: torch.Tensor, mask: torch.Tensor | None, *, gaps: bool) -> None:
        """Lay out the prompts where the model takes them; see `RowGroup.begin`."""
        device = input_device(self.group.model)
        self.group.begin(ids.to(device), None if mask is None else mask.to(device), gaps=gaps)

    @contextmanager
    def branched(self, index: torch.Tensor, *, keep: bool) -> Iterator[None]:
        """Let rows go on from the main view's rows `index`, and come back."""
        cache, length = self.cache, self.length
        try:
            with self.group.branched(index) as wide:
                self.cache = BranchedCache(cache, wide, keep=keep)
                yield
        finally:
            self.cache, self.length, self._owed = cache, length, None

    def reorder(self, index: torch.Tensor) -> None:
        """Let row `i` of every view continue the row `index[i]`; shape (batch,), int64."""
        if self.cache is not None:
            self.cache.reorder_cache(self.group.wide_index(index))
        if self._owed is not None:
            self._owed = _mapped(lambda tensor: tensor[index.to(tensor.device)], self._owed)
        self.group.prompt_exits.reorder(index)

    def owe(self, ids: torch.Tensor, position_ids: torch.Tensor | None, past: int) -> None:
        """Leave a forward's tokens to the next `forward`, which reads all that is owed at once; arguments as there."""
        self._owed = self._with_owed(ids, position_ids, past)

    def _with_owed(
        self, ids: torch.Tensor, position_ids: torch.Tensor | None, past: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The tokens after the first `past` and, in front of them, those owed that the loop has kept."""
        if self._owed is None or past <= self.length:
            return ids, position_ids
        owed, places = _mapped(lambda tensor: tensor[:, : past - self.length], self._owed)
        both = None if places is None or position_ids is None else torch.cat([places, position_ids], dim=1)
        return torch.cat([owed, ids], dim=1), both

    def forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        *,
        past: int,
        keep: int | torch.Tensor,
        use_cache: bool = True,
        device: torch.device,
    ) -> list[ViewLogits]:
        """Each view's logits after the tokens that `keep` names, on `device`.

        Args:
            ids: the tokens after the first `past`, shape (batch, new).
            mask: 2-D mask over all tokens, shape (batch, past + new), or None for no padding.
            position_ids: the main view's positions of the new tokens, shape (batch, new), or None to leave them to the
                model.
            past: how many tokens of the loop's rows stay in the cache; 0 starts it anew.
            keep: for how many last tokens logits are wanted, or their indices in `ids`.
            use_cache: False runs all tokens again each time.
            device: of the logits that these are compared with.
        """
        group = self.group
        width = ids.shape[1]
        ids, position_ids = self._with_owed(ids, position_ids, past)
        self._owed, owed = None, ids.shape[1] - width
        past -= owed
        if owed and isinstance(keep, torch.Tensor):
            keep = keep + owed
        if past == 0:
            config = group.model.config.get_text_config(decoder=True)
            self.cache = GrowingCache(config=config) if use_cache else None
            if use_cache:
                self.cache.activate_past_recording()
        elif not self.can_go_back_to(past):
            raise ModelError(
                f"{type(group.model).__name__} cannot take back tokens, which this mode of generate (assisted "
                "decoding) asks of it; use greedy search, sampling or beams."
            )
        elif past < self.length or past - self._cropped_to > _MOST_PAST:
            self.cache.crop(past - self.length)
            self._cropped_to = past
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": position_ids}
        here = input_device(group.model)
        given = {name: value.to(here) for name, value in inputs.items() if value is not None}
        if past == 0:
            given |= token_types(group.vision, given["input_ids"], group.prompt.length)
        wide = group.widen(given | {"cache": self.cache}, past)
        if isinstance(keep, torch.Tensor):
            keep = keep.to(here) + (0 if past else group.prompt.extra)
        cuts = group.group.takes_logits_to_keep and (isinstance(keep, int) or takes_positions_to_keep(group.model))
        if cuts:
            wide["logits_to_keep"] = keep
        with ExitStack() as stack, torch.no_grad():
            group.attach(stack, Block(type(group.model).__name__))
            group.aim(ids.shape[0], keep if cuts else 0, past=past)
            stack.callback(group.aim, 0, 0)
            outputs = group.model(**wide, use_cache=use_cache, return_dict=True)
            group.aim(0, 0)
            group.prompt_exits.look(outputs.logits, mask, past, ids.shape[1], group.prompt.length)
        self.length = past + ids.shape[1]
        kept = keep if isinstance(keep, int) else len(keep)
        step = self.length - kept + 1 - group.prompt.answer_start
        logits = outputs.logits if cuts or isinstance(keep, int) else outputs.logits[:, keep.to(outputs.logits.device)]
        views = group.split(logits, kept, step, group.prompt_exits.entropies)
        return [view.to(device) for view in views]


def _mapped(
    change: Callable[[torch.Tensor], torch.Tensor], owed: tuple[torch.Tensor, torch.Tensor | None]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    ids, positions = owed
    return change(ids), None if positions is None else change(positions)
