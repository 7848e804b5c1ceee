"""Early exits read inside the one forward: a block's output, through the model's own final norm and output head.

The exits ride through the head as extra rows, behind the rows of the last layer. So the head's weights are read once
for all layers, and whatever the model does after its head (soft-capping, scaling) happens to the exits too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from typing import Any

import torch

from truthkit.errors import ArgumentError, ModelError
from truthkit.hf.ownership import Block
from truthkit.hf.sites import decoder_blocks, output_head, resolve_layers
from truthkit.hf.tails import Tail, TailWatch, check_first_run, first_tensor, no_exits


class EarlyExits:
    """Taps on the blocks `layers` of `model`.

    Args:
        model: a model with a text decoder and an output head.
        layers: layer numbers (block outputs), negative from the end.
        norm: pass exits through the final norm. False gives the unnormalised exits of transformers 4's DoLa and of its
            authors' released code.
    """

    def __init__(self, model: Any, layers: Sequence[int], *, norm: bool = True):
        self._model, self._blocks = model, decoder_blocks(model)
        self.layers, self._norm = resolve_layers(layers, len(self._blocks)), norm
        self.head = output_head(model)
        self._watch: TailWatch | None = None
        self._tail: Tail | None = None
        self._rows: list[slice] = []
        self._keep: int | torch.Tensor = 0
        self._taken: dict[int, torch.Tensor] = {}

    def anew(self) -> EarlyExits:
        """The same taps, which have read nothing yet."""
        other = copy(self)
        other._watch, other._tail, other._rows, other._keep, other._taken = None, None, [], 0, {}
        return other

    @contextmanager
    def reading(self, rows: list[slice], keep: int | torch.Tensor) -> Iterator[None]:
        """Read exits in the forwards of this block.

        The logits of such a forward carry, behind its own rows, for each layer in order the rows of each slice in
        order.

        Args:
            rows: which rows of the batch to read.
            keep: the forward's `logits_to_keep`: that many last positions, indices of positions, or 0 for all.
        """
        with ExitStack() as stack:
            self.attach(stack, Block(type(self).__name__))
            self.aim(rows, keep)
            yield

    def attach(self, stack: ExitStack, block: Block) -> None:
        """Put the hooks on, for the threads of `block`; `stack` takes them off."""
        for layer in set(self.layers):
            tap = block.only_here(self._tap(layer))
            stack.callback(self._blocks[layer].register_forward_hook(tap).remove)
        append = block.only_here(self._append_exits)
        stack.callback(self.head.register_forward_pre_hook(append).remove)
        stack.callback(self._taken.clear)
        if self._tail is None:
            self._watch = TailWatch(self._model, self._blocks, self.head)
            self._watch.attach(stack, block)

    def aim(self, rows: list[slice], keep: int | torch.Tensor) -> None:
        """Say what the next forward is to read; no rows means none."""
        self._rows, self._keep = rows, keep
        self._taken.clear()

    @property
    def _positions(self) -> slice | torch.Tensor:
        """Which positions of the blocks' outputs the head reads."""
        if isinstance(self._keep, torch.Tensor):
            return self._keep
        return slice(-self._keep, None) if self._keep else slice(None)

    def _tap(self, layer: int) -> Any:
        def hook(_module: torch.nn.Module, _args: Any, output: Any) -> None:
            if not self._rows:
                return
            check_first_run(self._model, layer, self._taken)
            hidden = first_tensor(output)
            self._taken[layer] = hidden[:, self._positions].clone() if self._shortens(hidden) else hidden

        return hook

    def _shortens(self, hidden: torch.Tensor) -> bool:
        return isinstance(self._keep, torch.Tensor) or 0 < self._keep < hidden.shape[1]

    def _append_exits(self, head: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        if not self._rows:
            return None
        final = args[0]
        if self._tail is None:
            assert self._watch is not None
            self._tail = self._watch.tail(final.detach(), self._positions)
        if skipped := [layer for layer in self.layers if layer not in self._taken]:
            raise ModelError(no_exits(self._model, f"block {skipped[0]} did not run in this forward"))
        taken = [self._taken[layer].to(final.device)[rows] for layer in self.layers for rows in self._rows]
        self._taken.clear()
        return (torch.cat([final, self._tail(torch.cat(taken), norm=self._norm)]), *args[1:])


def named_layers(model: Any, layers: str | Sequence[int]) -> tuple[int, ...]:
    """Layer numbers, the blocks that "low" and "high" stand for in transformers 4's DoLa, or "all" but the last.

    Raises:
        ArgumentError: another name, no layer at all, or one that the model does not have.
    """
    count = len(decoder_blocks(model))
    if layers == "low":
        first = 1 if count > 2 else 0
        layers = range(first, max(min(count // 2, 20) - 1, first + 1), 2)
    elif layers == "high":
        layers = range(max(count // 2, count - 20, 1) - 1, count - 1, 2)
    elif layers == "all":
        layers = range(max(count - 1, 1))
    elif isinstance(layers, str):
        raise ArgumentError(f'layers is {layers!r}; expected "low", "high", "all" or a list of layer numbers.')
    return resolve_layers(layers, count)


def layers_at_depth(model: Any, first: float, last: float, steps: int) -> tuple[int, ...]:
    """The blocks behind which so much of the model's depth is done: `steps` shares from `first` to `last`.

    Half of 32 blocks are done behind block number 15; broken numbers are rounded down. Papers give numbers for models
    of one depth, and shares carry them to another.
    """
    count = len(decoder_blocks(model))
    shares = [first + (last - first) * step / max(steps - 1, 1) for step in range(steps)]
    return tuple(dict.fromkeys(max(int(share * count + 1e-6), 1) - 1 for share in shares))


def blocks_from(model: Any, layers: str | Sequence[int] | None, depth: float) -> tuple[int, ...]:
    """As `named_layers`; None: all blocks but the first `depth`, a share of them, rounded down.

    Raises:
        ArgumentError: as there.
    """
    if layers is not None:
        return named_layers(model, layers)
    count = len(decoder_blocks(model))
    return tuple(range(int(depth * count + 1e-6), count))
