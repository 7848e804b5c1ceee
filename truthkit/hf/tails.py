"""What a model does between its last decoder block and its output head, and behind that, learnt from one forward.

Architectures call their final norm by many names, put a projection behind it, or scale what comes out. Names are
guesses; so the modules that run after the last block are recorded, and a chain of them counts only if it turns that
block's output into what the head was given.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from truthkit.errors import ModelError
from truthkit.hf.ownership import Block

Step = nn.Module | float


@dataclass(frozen=True)
class Tail:
    """The steps from the last block's output to the head's input.

    Attributes:
        steps: modules and factors, in order.
    """

    steps: tuple[Step, ...]

    def __call__(self, hidden: torch.Tensor, *, norm: bool = True) -> torch.Tensor:
        """What the head is given for a block's output, shape (..., hidden); without `norm` the norms are left out."""
        for step in self.steps:
            if isinstance(step, float):
                hidden = hidden * step
            elif norm or "norm" not in type(step).__name__.lower():
                hidden = step(hidden)
        return hidden


class TailWatch:
    """Records what runs after the last block in the next forward.

    Args:
        model: the plain model.
        blocks: its decoder blocks.
        head: its output head.
    """

    def __init__(self, model: nn.Module, blocks: nn.ModuleList, head: nn.Module):
        self._model, self._blocks, self._head = model, blocks, head
        self._calls: list[tuple[nn.Module, torch.Tensor, torch.Tensor]] = []
        self._last: torch.Tensor | None = None
        self._hooks = ExitStack()

    def attach(self, stack: ExitStack, block: Block) -> None:
        """Put the hooks on, for the threads of `block`; `stack` takes them off, if `tail` has not done so before."""
        stack.callback(self._hooks.close)
        self._hook(self._blocks[-1].register_forward_hook(block.only_here(self._at_last_block)))
        for module in _outermost(self._model, {*self._blocks, self._head}):
            self._hook(module.register_forward_hook(block.only_here(self._record)))

    def tail(self, final: torch.Tensor, positions: slice | torch.Tensor) -> Tail:
        """The chain that ends in `final`.

        Args:
            final: what the head is given, shape (batch, kept positions, hidden).
            positions: which of the blocks' outputs these are.

        Raises:
            ModelError: there is none.
        """
        self._hooks.close()
        reached, steps = self._last, list[Step]()
        if reached is None:
            raise self._refused("its last block did not run")
        for module, given, made in self._calls:
            if (factor := _factor(reached, given)) is None:
                continue
            steps += [module] if factor == 1.0 else [factor, module]
            reached = made
        if reached.dim() == final.dim() == 3 and reached.shape[1] != final.shape[1]:
            reached = reached[:, positions]
        factor = _factor(reached, final)
        self._calls, self._last = [], None
        if factor is None:
            raise self._refused("what runs behind its last block does not turn its output into what its head reads")
        return Tail(tuple(steps if factor == 1.0 else [*steps, factor]))

    def _refused(self, reason: str) -> ModelError:
        return ModelError(no_exits(self._model, reason))

    def _hook(self, handle: Any) -> None:
        self._hooks.callback(handle.remove)

    def _at_last_block(self, _module: nn.Module, _args: Any, output: Any) -> None:
        self._last = first_tensor(output).detach()
        self._calls = []

    def _record(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._last is not None and args and isinstance(args[0], torch.Tensor) and isinstance(output, torch.Tensor):
            self._calls.append((module, args[0].detach(), output.detach()))


def behind_head(model: Any, made: torch.Tensor, logits: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """What makes a model's logits of what its head gives: nothing, a factor, or a soft cap.

    Args:
        model: the plain model.
        made: what the head gave in a forward.
        logits: what the forward gave.

    Raises:
        ModelError: it is something else.
    """
    cap = getattr(model.config.get_text_config(decoder=True), "final_logit_softcapping", None)
    made, logits = made.detach(), logits.detach()
    if (factor := _factor(made, logits)) is not None:
        return lambda values: values if factor == 1.0 else values * factor
    if cap and _factor(torch.tanh(made / cap) * cap, logits) == 1.0:
        return lambda values: torch.tanh(values / cap) * cap
    raise ModelError(no_exits(model, "what it does to its head's output is neither a factor nor a soft cap"))


def check_first_run(model: nn.Module, layer: int, taken: Container[int]) -> None:
    """Raises:
    ModelError: block `layer` has run in this forward already, so it is among `taken`.
    """
    if layer in taken:
        reason = f"it runs block {layer} several times in one forward, so which output is meant is unknown"
        raise ModelError(no_exits(model, reason))


def no_exits(model: nn.Module, reason: str) -> str:
    """What to say where blocks' outputs cannot be read as predictions."""
    return (
        f"early exits are not possible in {type(model).__name__}: {reason}. Use a method without `layers` (ICD, CAD), "
        "or omega=0 in LOL."
    )


def first_tensor(output: Any) -> torch.Tensor:
    """The hidden states among what a block returns."""
    return output[0] if isinstance(output, tuple | list) else output


def _outermost(module: nn.Module, inner: set[nn.Module]) -> list[nn.Module]:
    """The largest submodules that are called, are none of `inner`, and hold none of them."""
    found: list[nn.Module] = []
    for child in module.children():
        if child in inner:
            continue
        holds = not inner.isdisjoint(child.modules())
        found += _outermost(child, inner) if holds or isinstance(child, nn.ModuleList | nn.ModuleDict) else [child]
    return found


def _factor(mine: torch.Tensor, theirs: torch.Tensor) -> float | None:
    """The number that `mine` was multiplied by to become `theirs`; None if that is not what happened."""
    if mine is theirs:
        return 1.0
    if mine.shape != theirs.shape or not mine.dtype.is_floating_point:
        return None
    a, b = mine.to(theirs.device).float().nan_to_num(), theirs.float().nan_to_num()
    exact = mine.dtype in (torch.float32, torch.float64)
    tolerance = (1e-4 if exact else 2e-2) * float(b.abs().amax())
    if torch.allclose(a, b, rtol=0.0, atol=tolerance):
        return 1.0
    norm = float((a * a).sum())
    factor = float((a * b).sum()) / norm if norm else 0.0
    if not factor or not torch.allclose(a * factor, b, rtol=0.0, atol=tolerance):
        return None
    return factor
