"""A LoRA adapter that is on for some rows of the batch and off for the others.

Its low-rank update is added by a hook on each adapted layer, to the amateur's rows alone. The base model's weights,
modules and PEFT state stay as they are, so the base rows are the unmodified model to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from truthkit.decoding.engine.adapter import WAY_OUT, Adapter, LowRank
from truthkit.errors import AttachError, ModelError
from truthkit.hf.ownership import Block

_Hook = Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]


@dataclass
class _Readers:
    """Updates of layers that read one input, whose first factors are multiplied with it together.

    Attributes:
        updates: as their layers run.
        down: all their `down`, shape (sum of ranks, in).
        made_of: what tells whether `down` is still that.
    """

    updates: list[LowRank]
    down: torch.Tensor | None = None
    made_of: list[tuple[int, int]] = field(default_factory=list)

    def refresh(self) -> None:
        """Look at the updates' `down` again."""
        if (made_of := [_state(update.down) for update in self.updates]) != self.made_of:
            self.made_of, self.down = made_of, torch.cat([update.down.detach() for update in self.updates])


class AdapterRows:
    """An adapter's updates, applied to some rows of every forward while attached.

    The first forward shows which layers read the same input: q, k and v, or gate and up.
    """

    def __init__(self, adapter: Adapter):
        self._adapter = adapter
        self._rows, self._batch, self._width = slice(0, 0), 0, 0
        self._input: torch.Tensor | None = None
        self._version = 0
        self._seen: list[list[LowRank]] = []
        self._readers: dict[nn.Module, tuple[_Readers, int]] | None = None
        self._lows: list[torch.Tensor] = []
        self._idle: dict[nn.Module, tuple[tuple[int, int], bool]] = {}

    def refresh(self) -> None:
        """Before a prompt: the adapter's weights may have changed."""
        for readers in {id(one): one for one, _ in (self._readers or {}).values()}.values():
            readers.refresh()

    def aim(self, rows: slice, batch: int, width: int) -> None:
        """Act on `rows` of the next forward's `batch` rows, each of `width` tokens; an empty slice for none."""
        self._rows, self._batch, self._width = rows, batch, width
        self._input = None
        if batch:
            self._adapter.check_not_merged()
        elif self._readers is None and self._seen:
            self._settle()

    def _settle(self) -> None:
        """Know from the forward that is over which layers read the same input."""
        self._readers = {}
        for updates in self._seen:
            if len({(update.down.dtype, update.down.device) for update in updates}) > 1:
                continue
            if len(updates) > 1 and len({update.module for update in updates}) == len(updates):
                readers = _Readers(updates)
                readers.refresh()
                self._readers |= {update.module: (readers, i) for i, update in enumerate(updates)}
        self._seen = []

    def attach(self, stack: ExitStack, block: Block) -> None:
        """Put the hooks on, for the threads of `block`; `stack` takes them off.

        An adapter that is active in the model is off meanwhile.
        """
        name = self._adapter.name
        for layer in self._adapter.holders:
            if name in (active := list(layer.active_adapters)):
                before = layer._active_adapter
                layer._active_adapter = [one for one in active if one != name]
                stack.callback(setattr, layer, "_active_adapter", before)
                stack.callback(layer.register_forward_pre_hook(self._refuse_elsewhere(block)).remove)
        for update in self._adapter.updates:
            if not self._does_nothing(update):
                stack.callback(update.module.register_forward_hook(block.only_here(self._add(update))).remove)

    def _does_nothing(self, update: LowRank) -> bool:
        """Whether a layer was never trained: its `up` is zero, as LoRA begins."""
        if update.scaling == 0 or update.offloaded is not None:
            return update.scaling == 0
        state, known = _state(update.up), self._idle.get(update.module)
        if known is None or known[0] != state:
            known = self._idle[update.module] = state, not bool(update.up.any())
        return known[1]

    def _refuse_elsewhere(self, block: Block) -> Callable[..., None]:
        def hook(*_args: Any) -> None:
            if not block.here():
                raise AttachError(
                    f"adapter {self._adapter.name!r} is active in this model, and switched off while {block.name} "
                    "compares with it in another thread; wait until that block is left, or use a model of its own here."
                )

        return hook

    def _add(self, update: LowRank) -> _Hook:
        def hook(_module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            if self._rows.start == self._rows.stop:
                return output
            low = self._low(args[0], update)
            target = self._by_row(output, update)[self._rows]
            if low is not None and output.dtype == low.dtype and output.is_contiguous():
                target.view(-1, target.shape[-1]).addmm_(low, update.up.t(), alpha=update.scaling)
            else:
                change = update.of(self._by_row(args[0], update)[self._rows])
                target.add_(change.to(output.dtype), alpha=update.scaling)
            return output

        return hook

    def _low(self, given: torch.Tensor, update: LowRank) -> torch.Tensor | None:
        """The product of a layer's input and `down` for the rows of the adapter, (tokens, rank); None if it must not be
        computed apart.
        """
        if update.offloaded is not None:
            return None
        readers, number = (self._readers or {}).get(update.module, (None, 0))
        if self._readers is None:
            if given is not self._input:
                self._seen.append([])
            self._seen[-1].append(update)
            self._input = given
        if readers is not None and given is self._input and _version(given) == self._version:
            low = self._lows[number]
        else:
            rows = self._by_row(given, update)[self._rows]
            rows = rows.reshape(-1, rows.shape[-1]).to(update.down.dtype)
            if readers is None:
                return nn.functional.linear(rows, update.down)
            assert readers.down is not None
            self._lows = list(nn.functional.linear(rows, readers.down).split([len(u.down) for u in readers.updates], 1))
            self._input, self._version, low = given, _version(given), self._lows[number]
        if number == len(self._lows) - 1:  # nothing is left of it behind the last one
            self._input, self._lows = None, []
        return low

    def _by_row(self, states: torch.Tensor, update: LowRank) -> torch.Tensor:
        """`states` with the batch in front, also where a layer sees all tokens in one line (OPT, shared experts)."""
        shape = tuple(states.shape) if isinstance(states, torch.Tensor) else ()
        if len(shape) > 2 and shape[0] == self._batch:
            return states
        if len(shape) == 2 and shape[0] == self._batch * self._width:
            return states.view(self._batch, self._width, -1)
        raise ModelError(
            f"adapter {self._adapter.name!r} adapts a layer that handles {shape or type(states).__name__} in a batch "
            f"of {self._batch} rows of {self._width} tokens, so which token is whose is unknown (a mixture's expert or "
            f"router?): {update.module}. {WAY_OUT}"
        )


def _state(weight: torch.Tensor) -> tuple[int, int]:
    """What changes with a weight."""
    return weight.data_ptr(), _version(weight)


def _version(tensor: torch.Tensor) -> int:
    """How often a tensor was written to, where that is counted."""
    return 0 if torch.compiler.is_compiling() or tensor.is_inference() else tensor._version
