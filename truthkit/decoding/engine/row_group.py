"""The rows in which views run side by side: `n` views of `batch` rows each, view-major.

`RowGroup` widens the inputs of a forward from `batch` to `n * batch` rows, keeps the padding and the position offsets
of views whose prompts differ in length, and cuts the logits apart again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch

from truthkit.decoding.engine.adapter_rows import AdapterRows
from truthkit.decoding.engine.attention_rows import AttentionRows
from truthkit.decoding.engine.image_inputs import TOKEN_TYPES, placeholders, scattered, token_types_of
from truthkit.decoding.engine.lay_out import lay_out
from truthkit.decoding.engine.layout import Prompt, along_axes, repeated, repeated_positions
from truthkit.decoding.engine.step_masks import StepMasks
from truthkit.decoding.engine.view import ViewLogits
from truthkit.decoding.engine.view_group import ViewGroup
from truthkit.errors import ArgumentError, ModelError
from truthkit.hf.fast import FastDecoding
from truthkit.hf.ownership import Block
from truthkit.hf.spread import is_fully_sharded
from truthkit.hf.trees import behind_prompts


class RowGroup:
    """The views of a group as rows of a batch, while prompts are decoded.

    Attributes:
        attention: the edits of views that look at their images otherwise.
        in_step: whether other processes must run as many forwards of the model as this one.
        nothing_hidden_later: whether what comes behind the prompt's columns is never padding.
    """

    def __init__(self, group: ViewGroup):
        self.group, self.model, self.vision = group, group.model, group.vision
        group.check_unchanged()
        self.same_prompt = group.same_prompt
        self.images, self.exits, self.prompt_exits = group.image_rows(), group.exits(), group.prompt_exits()
        self._adapters = [(view, AdapterRows(adapter.now())) for view, adapter in group.adapters]
        self.attention = AttentionRows(group)
        self.in_step = is_fully_sharded(self.model)
        self._prompt: Prompt | None = None
        self._width = 0
        self.nothing_hidden_later = self._takes_step_masks = self._generating = False
        self._fast: FastDecoding | None = None
        self._steps_of: Any = None
        self._steps: StepMasks | None = None

    @property
    def rows(self) -> int:
        return len(self.group.views)

    @property
    def laid_out(self) -> bool:
        """Whether there is a prompt, from `begin` to `end`."""
        return self._prompt is not None

    @property
    def prompt(self) -> Prompt:
        """The prompt's layout, while there is one."""
        assert self._prompt is not None
        return self._prompt

    def end(self) -> None:
        """Forget the prompt and its images."""
        self._prompt = self._steps_of = self._steps = self._fast = None
        self.images.forget()
        self.aim(0, 0)

    def prompt_goes_on(self, length: int) -> None:
        """Let the prompt's end be in tokens that are still to come, at `length`."""
        self._prompt = replace(self.prompt, whole=length)
        self.prompt_exits.go_on()

    @contextmanager
    def branched(self, index: torch.Tensor) -> Iterator[torch.Tensor]:
        """Let rows go on from the main view's rows `index`, and come back; yields the index over all views."""
        trunk = self.prompt
        wide = self.wide_index(index)
        self._prompt = trunk.select(len(index), wide)
        try:
            with self.prompt_exits.branched(index):
                yield wide
        finally:
            self._prompt = trunk

    def wide_index(self, index: torch.Tensor) -> torch.Tensor:
        """A row index of the main view, shape (batch,), as one of all views, shape (rows * batch,)."""
        batch = self.prompt.batch if self.laid_out else len(index)
        return torch.cat([index + view * batch for view in range(self.rows)])

    def attach(self, stack: ExitStack, block: Block) -> None:
        """Put the hooks of adapters and exits on, for the threads of `block`; `stack` takes them off."""
        if self._fast is None:
            self._fast = FastDecoding(self.model)
        stack.enter_context(self._fast.running())
        self.prompt_exits.attach(stack, block)
        for _, adapter in self._adapters:
            adapter.attach(stack, block)
        self.attention.attach(stack, block)
        if self.exits:
            self.exits.attach(stack, block)

    def aim(
        self,
        batch: int,
        keep: int | torch.Tensor,
        width: int | None = None,
        past: int = 0,
        views: Sequence[int] | None = None,
    ) -> None:
        """Say which rows the next forward's adapters, exits and attention edits act on; `batch` 0 means none.

        Args:
            batch: rows per view.
            keep: the forward's `logits_to_keep`.
            width: how many tokens it has, where that is not what `widen` made.
            past: how many of the main view's tokens came before.
            views: the numbers of those that it has, where it doesn't have all.
        """
        self._width = self._width if width is None else width
        for view, adapter in self._adapters:
            adapter.aim(slice(view * batch, (view + 1) * batch), self.rows * batch, self._width)
        self.prompt_exits.aim(batch, keep)
        if self.exits:
            rows = [slice(view * batch, (view + 1) * batch) for view in self.group.exit_views] if batch else []
            self.exits.aim(rows, keep)
        if self.attention and not batch:
            self.attention.rest()
        elif self.attention:
            seen = range(self.rows) if views is None else views
            self.attention.aim(self.prompt, seen, past, self._width, None if self._generating else keep)

    def begin(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None,
        position_ids: torch.Tensor | None = None,
        *,
        gaps: bool = False,
        whole: bool = True,
    ) -> None:
        """Lay out the prompts.

        Args:
            ids: (batch, length), or embeddings, (batch, length, hidden).
            mask: (batch, length) or None.
            position_ids: the main view's, if the caller has them.
            gaps: padding may stand within a prompt too (InstructBLIP's is between image and text), but not behind it:
                only the logits behind the prompt are wanted, and where the rest comes to lie does not matter.
            whole: false if more of the prompts is still to come, as in chunked prefill.
        """
        self._prompt = lay_out(self.group, self.images, ids, mask, position_ids, gaps=gaps)
        self._generating = gaps
        self.nothing_hidden_later, self._steps_of = gaps and whole, None
        self.prompt_exits.begin()
        for _, adapter in self._adapters:
            adapter.refresh()

    def widen(self, kwargs: dict[str, Any], past: int) -> dict[str, Any]:
        """The keyword arguments of a forward for all rows, from those for the main view's `batch` rows.

        Args:
            kwargs: `input_ids` or `inputs_embeds`, `attention_mask` (2-D or None), `position_ids` and the rest.
            past: how many of the main view's tokens the cache holds already; 0 also without a cache.
        """
        prompt, n, wide = self.prompt, self.rows, dict(kwargs)
        wide.pop("mm_encoder_outputs", None)
        ids, mask, positions = kwargs.get("input_ids"), kwargs.get("attention_mask"), kwargs.get("position_ids")
        width = (ids if ids is not None else kwargs["inputs_embeds"]).shape[1]
        if prompt.ids is not None and kwargs.get("cross_attention_mask") is not None:
            raise ModelError(
                f"{type(self.model).__name__} sees images through cross-attention, by a mask over the prompt's own "
                "tokens, which a view with another prompt does not have; use views with the same prompt (an adapter, "
                "early exits)."
            )
        if ids is None and past == 0 and prompt.ids is not None and self.vision is self.model:
            raise ArgumentError(
                "inputs_embeds was given, but a view with another prompt is read from its tokens; pass input_ids alone."
            )
        wide |= repeated(kwargs, prompt.batch, n)
        if ids is not None:
            wide["input_ids"] = ids if n == 1 else ids.repeat(n, 1)
            if prompt.ids is not None and past == 0:
                wide["input_ids"] = torch.cat([prompt.ids, ids[:, prompt.length :].repeat(n, 1)], dim=1)
        for name in TOKEN_TYPES if prompt.ids is not None and past == 0 else ():
            if wide.get(name) is not None:
                assert prompt.ids is not None
                wide[name] = token_types_of(self.vision, wide[name], prompt.ids, prompt.length)
        if past == 0 and self.images.ready and (images := self.images.output(prompt.batch)) is not None:
            if self.vision is self.model:
                wide["mm_encoder_outputs"] = {"image": images}
            else:
                written = wide.pop("input_ids", None)
                wide["inputs_embeds"] = self._embedded(prompt.ids if written is None else written, images)

        self._width = width + prompt.extra if past == 0 else width
        tail = past + width - prompt.length
        own_masks = past > 0 and width == 1 and tail > 0 and self._makes_step_masks(mask, kwargs.get("cache"))
        if mask is not None and mask.dim() == 4:
            wide_mask = behind_prompts(mask, prompt.mask, prompt.length, self.model.dtype)
        elif own_masks and prompt.axes is None:
            wide_mask = None
        elif tail > 0:
            rest = prompt.mask.new_ones(prompt.batch, tail) if mask is None else mask[:, prompt.length :].long()
            wide_mask = torch.cat([prompt.mask, rest.repeat(n, 1)], dim=1)
        else:
            wide_mask = prompt.mask[:, : past + width + prompt.extra]
        wide["attention_mask"] = wide_mask if mask is not None or (prompt.padded and not self.same_prompt) else None
        if own_masks:
            wide["attention_mask"] = self._steps.at(past + width + prompt.extra) if self._steps else None

        if prompt.axes is not None:
            assert wide_mask is not None
            wide["position_ids"] = along_axes(prompt.axes, wide_mask, self._width, positions)
        elif not self.same_prompt and self.group.takes_positions and (past == 0 or positions is None):
            if wide_mask is None:
                every = prompt.mask.sum(dim=1, keepdim=True) + (tail - 1)
            else:
                every = (wide_mask.cumsum(dim=1) - 1).clamp_min_(0)
            if positions is not None and prompt.offsets is not None:  # some models count from 1
                last = positions[:, -1:].expand(prompt.batch, -1).repeat(n, 1) + prompt.offsets
                every = every + last - every[:, -1:]
            wide["position_ids"] = every if past == 0 else every[:, -width:]
        elif positions is not None:
            main = repeated_positions(positions, prompt.batch, n)
            wide["position_ids"] = main if prompt.offsets is None else main + prompt.offsets
        return wide

    def _makes_step_masks(self, mask: torch.Tensor | None, cache: Any) -> bool:
        """Whether the masks of steps with `cache` are made here: they are `_steps`, or none where nothing is padded."""
        if cache is None or not self.nothing_hidden_later or (mask is not None and mask.dim() != 2):
            return False
        if cache is not self._steps_of:
            self._steps_of, self._steps = cache, None
            self._takes_step_masks = StepMasks.takes(self.model, cache)
            if self._takes_step_masks and self.prompt.padded:
                self._steps = StepMasks(self.model, cache, self.prompt.mask)
        return self._takes_step_masks

    def _embedded(self, ids: torch.Tensor | None, images: Any) -> torch.Tensor:
        """Embeddings of all rows, for a language model that is handed the images' features in them."""
        assert ids is not None
        return scattered(self.model.get_input_embeddings()(ids), placeholders(self.vision, ids), images)

    def split(
        self, logits: torch.Tensor, positions: int, step: int | torch.Tensor, entropies: torch.Tensor | None
    ) -> list[ViewLogits]:
        """Each view's last `positions` logits from a forward's `logits`, whose rows are the views' and then the
        exits'; `step` goes into them, and `entropies` into the main view's.
        """
        batch, vocabulary = self.prompt.batch, logits.shape[-1]
        logits = logits[:, -positions:]
        logits = logits if logits.dtype == torch.float64 else logits.float()
        own, behind = logits[: self.rows * batch], logits[self.rows * batch :]
        exits: list[torch.Tensor | None] = [None] * self.rows
        if self.exits:
            shape = (len(self.exits.layers), len(self.group.exit_views), batch, positions, vocabulary)
            for view, layers in zip(self.group.exit_views, behind.view(shape).unbind(1), strict=True):
                exits[view] = layers
        of_prompt = [entropies, *[None] * (self.rows - 1)]
        return [ViewLogits(*seen) for seen in zip(own.split(batch), exits, [step] * self.rows, of_prompt, strict=True)]
