"""Early exits at all tokens of a prompt, of which only their entropies over the prompt are kept.

All exits of a prompt at once would be a number for every token and every word of the vocabulary. They are made for a
few tokens at a time and go into running sums, so that what is held has the size of the rows' next-token logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from typing import Any, NamedTuple

import torch

from truthkit.decoding.engine.running_entropy import RunningEntropy
from truthkit.hf.ownership import Block
from truthkit.hf.sites import decoder_blocks, output_head
from truthkit.hf.spread import refuse_fully_sharded
from truthkit.hf.tails import Tail, TailWatch, behind_head, check_first_run, first_tensor

_LOGITS_AT_A_TIME = 1 << 23
"""For how many logits, of all rows together, temporaries are made at once."""

_SHARDED = "early exits at all of a prompt are read through the output head by itself; use a method without them."


class PromptExit(NamedTuple):
    """Exits behind block `layer`, counted from 0, through the final norm or not."""

    layer: int
    norm: bool


class PromptExits:
    """Taps on blocks of `model`, and what they have seen of the prompts; nothing where there are no `exits`.

    Args:
        model: a model with a text decoder and an output head.
        exits: which exits, of the first rows of its batches.
    """

    def __init__(self, model: Any, exits: Sequence[PromptExit]):
        self._model, self._exits = model, tuple(exits)
        if exits:
            self._blocks, self._head = decoder_blocks(model), output_head(model)
            refuse_fully_sharded(model, _SHARDED)
        self._tail: Tail | None = None
        self._behind: Callable[[torch.Tensor], torch.Tensor] | None = None
        self._forget()

    def _forget(self) -> None:
        self._rows, self._keep, self._complete = 0, slice(None), False
        self._taken: dict[int, torch.Tensor] = {}
        self._made: torch.Tensor | None = None
        self._sums: list[RunningEntropy] = []
        self._entropies: torch.Tensor | None = None

    def anew(self) -> PromptExits:
        """The same taps, which have read nothing yet."""
        other = copy(self)
        other._tail = other._behind = None
        other._forget()
        return other

    def __bool__(self) -> bool:
        return bool(self._exits)

    @property
    def entropies(self) -> torch.Tensor | None:
        """In nats, over the tokens that were counted so far, shape (exits, rows, vocabulary); float32, or float64."""
        if self._entropies is None and self._sums:
            self._entropies = torch.stack([sums.entropy() for sums in self._sums])
        return self._entropies

    def attach(self, stack: ExitStack, block: Block) -> None:
        """Put the hooks on, for the threads of `block`; `stack` takes them off."""
        if not self._exits:
            return
        for layer in {one.layer for one in self._exits}:
            stack.callback(self._blocks[layer].register_forward_hook(block.only_here(self._tap(layer))).remove)
        if self._tail is None:
            self._watch = TailWatch(self._model, self._blocks, self._head)
            self._watch.attach(stack, block)
        if self._tail is None or self._behind is None:
            stack.callback(self._head.register_forward_pre_hook(block.only_here(self._before_head)).remove)
            stack.callback(self._head.register_forward_hook(block.only_here(self._after_head)).remove)
        stack.callback(self._taken.clear)

    def begin(self) -> None:
        """Let other prompts be read; the rows of a forward are theirs from now on."""
        self._forget()

    def aim(self, rows: int, keep: int | torch.Tensor) -> None:
        """Say that the next forward's first `rows` are to be looked at, if there is more of the prompts; 0: none.

        Args:
            rows: of the main view.
            keep: the forward's `logits_to_keep`.
        """
        self._rows = 0 if self._complete else rows
        self._keep = keep if isinstance(keep, torch.Tensor) else slice(-keep if keep else None, None)  # type: ignore

    def go_on(self) -> None:
        """Let there be more of the prompts."""
        self._complete = False

    def reorder(self, index: torch.Tensor) -> None:
        """Let row `i` go on from the row `index[i]`; shape (rows,), int64."""
        self._sums, self._entropies = [sums.select(index) for sums in self._sums], None

    @contextmanager
    def branched(self, index: torch.Tensor) -> Iterator[None]:
        """Let rows go on from the rows `index`, and come back."""
        before = self._sums, self._complete
        self.reorder(index)
        try:
            yield
        finally:
            (self._sums, self._complete), self._entropies = before, None

    def look(
        self,
        logits: torch.Tensor,
        mask: torch.Tensor | None,
        past: int,
        width: int,
        length: int,
        lengths: Sequence[int] | None = None,
    ) -> None:
        """Count what the taps took in a forward that has just run.

        Args:
            logits: what the model gave for the positions that were kept, before anything is done with them.
            mask: which columns are no padding, shape (rows, past + width) or wider, or None for all.
            past: how many columns were read before.
            width: how many were read now.
            length: of the prompts, in columns; what is read behind that is not counted.
            lengths: instead, how many tokens of each row are its prompt.
        """
        taken, made, self._made = dict(self._taken), self._made, None
        self._taken.clear()
        if not taken:
            return
        count = width if lengths is not None else max(min(length - past, width), 0)
        rows = len(taken[self._exits[0].layer])
        mask = logits.new_ones(rows, past + count) if mask is None or mask.dim() != 2 else mask[:, : past + count]
        real = mask.bool()
        if lengths is not None:
            real &= mask.cumsum(dim=1) <= torch.tensor(lengths, device=mask.device)[:, None]
        with torch.no_grad():
            if self._behind is None:
                assert made is not None
                self._behind = behind_head(self._model, made, logits)
            for number, (layer, norm) in enumerate(self._exits):
                self._count(number, taken[layer][:, -width:][:, :count], norm, real[:, past:])
        self._complete, self._entropies = lengths is None and past + width >= length, None

    def _count(self, number: int, hidden: torch.Tensor, norm: bool, real: torch.Tensor) -> None:
        """Add the exits of `hidden`, shape (rows, positions, hidden), a few positions at a time."""
        assert self._tail is not None
        assert self._behind is not None
        vocabulary = self._model.config.get_text_config(decoder=True).vocab_size
        some = max(_LOGITS_AT_A_TIME // (len(hidden) * vocabulary), 1)
        for part, counted in zip(hidden.split(some, dim=1), real.split(some, dim=1), strict=True):
            logits = self._behind(self._head(self._tail(part.to(self._device), norm=norm)))
            logits = logits if logits.dtype == torch.float64 else logits.float()
            if number == len(self._sums):
                self._sums.append(RunningEntropy.of_nothing(logits))
            self._sums[number].add(logits, counted.to(logits.device))

    def _tap(self, layer: int) -> Any:
        def hook(_module: torch.nn.Module, _args: Any, output: Any) -> None:
            if not self._rows:
                return
            check_first_run(self._model, layer, self._taken)
            self._taken[layer] = first_tensor(output)[: self._rows]

        return hook

    def _before_head(self, _head: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if self._rows and self._tail is None:
            self._device = args[0].device
            self._tail = self._watch.tail(args[0].detach(), self._keep)

    def _after_head(self, _head: torch.nn.Module, _args: Any, output: torch.Tensor) -> None:
        if self._rows and self._behind is None:
            self._made = output.detach()
