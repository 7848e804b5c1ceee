"""A LoRA adapter that is on for some rows of the batch and off for the others.

Its low-rank update is added by a hook on each adapted layer, to the amateur's rows alone. The base model's weights,
modules and PEFT state stay as they are, so the base rows are the unmodified model to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from truthkit.decoding.engine.adapter import WAY_OUT, Adapter, LowRank
from truthkit.errors import AttachError, ModelError
from truthkit.hf.ownership import Block

_Hook = Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]


class AdapterRows:
    """An adapter's updates, applied to some rows of every forward while attached."""

    def __init__(self, adapter: Adapter):
        self._adapter = adapter
        self._rows, self._batch, self._width = slice(0, 0), 0, 0

    def aim(self, rows: slice, batch: int, width: int) -> None:
        """Act on `rows` of the next forward's `batch` rows, each of `width` tokens; an empty slice for none."""
        self._rows, self._batch, self._width = rows, batch, width
        if batch:
            self._adapter.check_not_merged()

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
            stack.callback(update.module.register_forward_hook(block.only_here(self._add(update))).remove)

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
            x = self._by_row(args[0], update)[self._rows]
            low = update.of(x, output.shape[-1])
            self._by_row(output, update)[self._rows].add_(low.to(output.dtype), alpha=update.scaling)
            return output

        return hook

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
