"""A LoRA adapter that is on for some rows of the batch and off for the others.

Its low-rank update is added by a hook on each adapted layer, to the amateur's rows alone. The base model's weights,
modules and PEFT state stay as they are, so the base rows are the unmodified model to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from truthkit.decoding.engine.adapter import WAY_OUT, Adapter, LowRank
from truthkit.errors import AttachError, ModelError
from truthkit.hf.ownership import Block
from truthkit.hf.spread import split_of

_Hook = Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]


class _Place:
    """Where an update stands in the forward.

    Attributes:
        idle: nothing is added: its `up` is zero, as LoRA begins, or its scaling.
        readers: it and those that read its input too; None where its factors do not lie here as they are.
        number: its number among them.
        up: transposed, shape (rank, out).
    """

    def __init__(self, update: LowRank):
        self.update, self.idle = update, update.scaling == 0
        self.readers: _Readers | None = None
        self.number = 0
        self.up = update.up.t()
        self.state: Any = None


class _Readers:
    """Updates of layers that are known to read one input, whose first factors are multiplied with it together.

    Of each input the product is kept until all of them had theirs; layers that read others make their own.
    """

    def __init__(self, places: list[_Place]):
        self.places = places
        for number, place in enumerate(places):
            place.readers, place.number = self, number
        self._down = torch.cat([place.update.down.detach() for place in places])
        self._ranks = [len(place.update.down) for place in places]
        self._input: torch.Tensor | None = None
        self._version = self._left = 0
        self._lows: tuple[torch.Tensor, ...] = ()

    def low(self, place: _Place, given: torch.Tensor, rows: Callable[..., torch.Tensor]) -> torch.Tensor:
        """The product of the layers' input with the `down` of `place`, (tokens, rank).

        Args:
            place: one of them.
            given: the input.
            rows: given it and an update, the adapter's rows of it, (rows, width, in).
        """
        version = _version(given)
        if given is not self._input or version != self._version:
            flat = rows(given, place.update).flatten(0, -2)
            low = nn.functional.linear(flat.to(self._down.dtype), self._down)
            self._lows = low.split_with_sizes(self._ranks, 1)
            self._input, self._version, self._left = given, version, len(self._ranks)
        low, self._left = self._lows[place.number], self._left - 1
        if not self._left:
            self._input, self._lows = None, ()
        return low


class AdapterRows:
    """An adapter's updates, applied to some rows of every forward while attached."""

    def __init__(self, adapter: Adapter):
        self._adapter = adapter
        self._places = [_Place(update) for update in adapter.updates]
        self._siblings = _siblings(adapter.model, self._places)
        self._first, self._count, self._batch, self._width = 0, 0, 0, 0

    def refresh(self) -> None:
        """Before a prompt: the adapter's weights may have changed."""
        changed = [place for place in self._places if place.update.offloaded is None and _changed(place)]
        for place in changed:
            place.up = place.update.up.detach().t()
            place.idle = place.update.scaling == 0 or not bool(place.up.any())
        if changed:
            self._settle()

    def aim(self, rows: slice, batch: int, width: int) -> None:
        """Act on `rows` of the next forward's `batch` rows, each of `width` tokens; an empty slice for none."""
        self._first, self._count, self._batch, self._width = rows.start, rows.stop - rows.start, batch, width
        if batch:
            self._adapter.check_not_merged()

    def _settle(self) -> None:
        for place in self._places:
            place.readers = None
        for places in self._siblings:
            here = [place for place in places if not place.idle and _is_whole(place.update)]
            if len({(place.update.down.dtype, place.update.down.device) for place in here}) == 1:
                _Readers(here)

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
        for place in self._places:
            stack.callback(place.update.module.register_forward_hook(block.only_here(self._add(place))).remove)

    def _refuse_elsewhere(self, block: Block) -> Callable[..., None]:
        def hook(*_args: Any) -> None:
            if not torch.compiler.is_compiling() and not block.here():
                raise AttachError(
                    f"adapter {self._adapter.name!r} is active in this model, and switched off while {block.name} "
                    "compares with it in another thread; wait until that block is left, or use a model of its own here."
                )

        return hook

    def _add(self, place: _Place) -> _Hook:
        update = place.update

        def hook(_module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            if not self._count:
                return output
            if place.idle:
                return output
            given, readers, target = args[0], place.readers, self._rows_of(output, update)
            if readers is not None and output.dtype == update.up.dtype and output.is_contiguous():
                low = readers.low(place, given, self._rows_of)
                target.flatten(0, -2).addmm_(low, place.up, alpha=update.scaling)
            else:
                change = update.of(self._rows_of(given, update), output.shape[-1])
                target.add_(change.to(output.dtype), alpha=update.scaling)
            return output

        return hook

    def _rows_of(self, states: torch.Tensor, update: LowRank) -> torch.Tensor:
        """The adapter's rows of `states`, (rows, width, features), also where a layer sees all tokens in one line (OPT,
        shared experts).
        """
        shape: Sequence[int] = getattr(states, "shape", ())
        if len(shape) == 3 and shape[0] == self._batch:
            return states.narrow(0, self._first, self._count)
        if len(shape) == 2 and shape[0] == self._batch * self._width:
            states = states.view(self._batch, self._width, -1)
        elif len(shape) < 3 or shape[0] != self._batch:
            raise ModelError(
                f"adapter {self._adapter.name!r} adapts a layer that handles {tuple(shape) or type(states).__name__} "
                f"in a batch of {self._batch} rows of {self._width} tokens, so which token is whose is unknown (a "
                f"mixture's expert or router?): {update.module}. {WAY_OUT}"
            )
        return states.narrow(0, self._first, self._count)


_ONE_INPUT = ({"q_proj", "k_proj", "v_proj"}, {"query", "key", "value"}, {"gate_proj", "up_proj"}, {"w1", "w3"})
"""Layers of one module that mostly read the same input."""


def _siblings(model: nn.Module, places: list[_Place]) -> list[list[_Place]]:
    """The updates in groups that may read one input."""
    names = {module: name for name, module in model.named_modules()}
    groups: dict[tuple[str, Any], list[_Place]] = {}
    for place in places:
        parent, _, name = names[place.update.module].rpartition(".")
        kind = next((i for i, known in enumerate(_ONE_INPUT) if name in known), name)
        groups.setdefault((parent, kind), []).append(place)
    return list(groups.values())


def _changed(place: _Place) -> bool:
    """Whether the update has other weights than when this was last asked."""
    before, place.state = place.state, (_state(place.update.down), _state(place.update.up))
    return place.state != before


def _state(weight: torch.Tensor) -> tuple[int, int]:
    """What changes with a weight."""
    return weight.data_ptr(), _version(weight)


def _version(tensor: torch.Tensor) -> int:
    """How often a tensor was written to, where that is counted."""
    return 0 if torch.compiler.is_compiling() or tensor.is_inference() else tensor._version


def _is_whole(update: LowRank) -> bool:
    """Whether its factors lie here, for all of its layer."""
    return update.offloaded is None and split_of(update.module) is None
