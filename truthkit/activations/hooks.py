"""Hooks at a site of several layers, put on and taken off together, which know the tokens of every forward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, TypeAlias, cast

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from truthkit.activations.positions import Positions, check_positions
from truthkit.activations.tracking import Tracker
from truthkit.errors import AttachError
from truthkit.hf.compiled import guarded_compilation, is_compiled
from truthkit.hf.ownership import Block
from truthkit.hf.sites import decoder_blocks, resolve_layers, site_module
from truthkit.hf.spread import split_of
from truthkit.hf.step_parts import Arguments
from truthkit.hf.steps import uncompiled
from truthkit.hf.wrapping import plain_model

OnStates: TypeAlias = Callable[[torch.Tensor], torch.Tensor | None]
"""Takes the states at a site, (rows, width, features); what it returns takes their place, None leaves them."""


def hook_states(block: nn.Module, site: str, act: OnStates, owner: Block) -> RemovableHandle:
    """Call `act` with the states at a site of a decoder block whenever they are computed, in the threads of `owner`."""
    module = site_module(block, site)

    def on_input(module: nn.Module, args: tuple[Any, ...]) -> Any:
        changed = act_on_whole(act, module, args[0])
        return None if changed is None else (changed, *args[1:])

    def on_output(_module: nn.Module, _args: Any, output: Any) -> Any:
        if not isinstance(output, tuple | list):
            return act(output)
        changed = act(output[0])
        return None if changed is None else type(output)([changed, *output[1:]])

    if site == "heads":
        return module.register_forward_pre_hook(owner.only_here(on_input))
    return module.register_forward_hook(owner.only_here(on_output))


def act_on_whole(act: OnStates, module: nn.Module, states: torch.Tensor) -> torch.Tensor | None:
    """`act` on a layer's inputs; where each process has a part of them, on all of them, and a part takes its place."""
    split = split_of(module)
    if split is None or states.shape[-1] == (width := cast("int", module.in_features)):
        return act(states)
    changed = act(split.gathered(states, width))
    return None if changed is None else split.part(changed)


@dataclass(eq=False)
class _Share:
    """The part of a block's hooks in compiled decode steps; see `truthkit.hf.step_parts.Part`."""

    name: str
    owner: Any
    block: Block
    tracker: Tracker
    reason: str | None

    @property
    def has_read(self) -> bool:
        """Whether the tracker saw the whole prompt."""
        return self.tracker.has_read

    def obstacle(self, _inputs: Arguments) -> str | None:
        """Why its hooks cannot be traced."""
        return self.reason

    def step(self, inputs: Arguments, rows: int, wide: Callable[[], Arguments]) -> AbstractContextManager[None]:
        """What the tracker does before a step."""
        return self.tracker.step(inputs, rows, wide)


class Hooked(ABC):
    """What reading and steering share: hooks for the length of a `with` block, on a model that runs as it likes.

    A block belongs to the thread that entered it and to those that this thread starts inside; one call of `generate`
    runs at a time. In all other threads the model is as it was.

    Subclasses say what is done in `_begin_forward`, once `self._tracker` knows the tokens, and in `_on_states`.

    Args:
        model: any text or image-text model; PEFT wrappers are looked through.
        layers: layer numbers; None is all.
        site: "block", "heads" or "mlp".
        positions: which tokens; see `truthkit.activations.positions`.
        processor: tokenizer or processor, for positions that look at characters.
    """

    _untraceable: ClassVar[str | None] = None
    """Why what `_on_states` does cannot be compiled with the model, as a clause."""

    of_whole_prompt = False
    """Whether what it does to a token depends on all of the prompt, so that prompts are not to be read in parts."""

    def __init__(self, model: Any, layers: Sequence[int] | None, site: str, positions: Positions, processor: Any):
        self._given, self.model = model, plain_model(model)
        self.site, self.positions = site, check_positions(positions, processor)
        blocks = decoder_blocks(self.model)
        self.layers = resolve_layers(range(len(blocks)) if layers is None else layers, len(blocks))
        for layer in self.layers:
            site_module(blocks[layer], site)
        self._tracker = Tracker(self.model, processor, self._begin_forward)
        self._beside: list[Callable[[ExitStack, Block], None]] = []  # what goes on before the hooks on the states
        self._stack = ExitStack()
        self._block: Block | None = None

    @property
    def prompt_lengths(self) -> Sequence[int] | None:
        """For forwards outside `generate`: how many of each text's tokens are prompt. None means all."""
        return self._tracker.prompt_lengths

    @prompt_lengths.setter
    def prompt_lengths(self, lengths: Sequence[int] | None) -> None:
        self._tracker.prompt_lengths = lengths

    def reads(self, part: Literal["prompt", "answer"] | None) -> None:
        """Say that all tokens of the next forwards outside `generate` are of this part of their texts, whatever was
        read before; None: no longer.
        """
        self._tracker.part = part

    def __enter__(self) -> Self:
        if self._block is not None:
            raise AttachError(
                f"this {type(self).__name__} is entered already; leave its block first, or make another one."
            )
        blocks, owner = decoder_blocks(self.model), Block(type(self).__name__)
        with ExitStack() as stack:
            stack.enter_context(owner.open())
            self._tracker.attach(stack, owner)
            for attach in self._beside:
                attach(stack, owner)
            for layer in dict.fromkeys(self.layers):
                stack.callback(hook_states(blocks[layer], self.site, self._on_states(layer), owner).remove)
            share = _Share(type(self).__name__, self, owner, self._tracker, self._untraceable)
            stack.enter_context(uncompiled(self.model, is_compiled(self._given, self.model), share))
            stack.enter_context(guarded_compilation())
            self._stack, self._block = stack.pop_all(), owner
        return self

    def __exit__(self, *exception: object) -> None:
        if (owner := self._block) is None:
            return
        caller = owner.leave()
        self._block = None
        self._stack.close()
        owner.refuse_left(caller, exception)

    @abstractmethod
    def _begin_forward(self) -> None: ...

    @abstractmethod
    def _on_states(self, layer: int) -> OnStates: ...
