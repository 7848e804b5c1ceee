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
from truthkit.hf.sites import decoder_blocks, final_norm, output_head, resolve_layers


class EarlyExits:
    """Taps on the blocks `layers` of `model`.

    Args:
        model: a model with a text decoder and an output head.
        layers: layer numbers (block outputs), negative from the end.
        norm: pass exits through the final norm. False gives the unnormalised exits of transformers 4's DoLa and of its
            authors' released code.
    """

    def __init__(self, model: Any, layers: Sequence[int], *, norm: bool = True):
        self._blocks = decoder_blocks(model)
        self.layers = resolve_layers(layers, len(self._blocks))
        self.head = output_head(model)
        self._norm = final_norm(model)
        self._to_head = final_norm(model, norm=norm)
        self._checked = False
        self._rows: list[slice] = []
        self._keep: int | torch.Tensor = 0
        self._taken: dict[int, torch.Tensor] = {}

    def anew(self) -> EarlyExits:
        """The same taps, which have read nothing yet."""
        other = copy(self)
        other._checked, other._rows, other._keep, other._taken = False, [], 0, {}
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
            self.attach(stack)
            self.aim(rows, keep)
            yield

    def attach(self, stack: ExitStack) -> None:
        """Put the hooks on; `stack` takes them off."""
        wanted = set(self.layers) if self._checked else {*self.layers, len(self._blocks) - 1}
        for layer in wanted:
            stack.callback(self._blocks[layer].register_forward_hook(self._tap(layer)).remove)
        stack.callback(self.head.register_forward_pre_hook(self._append_exits).remove)
        stack.callback(self._taken.clear)

    def aim(self, rows: list[slice], keep: int | torch.Tensor) -> None:
        """Say what the next forward is to read; no rows means none."""
        self._rows, self._keep = rows, keep
        self._taken.clear()

    def _tap(self, layer: int) -> Any:
        def hook(_module: torch.nn.Module, _args: Any, output: Any) -> None:
            if self._rows:
                hidden = output[0] if isinstance(output, tuple | list) else output
                keep = slice(-self._keep, None) if isinstance(self._keep, int) and self._keep else self._keep
                self._taken[layer] = hidden if isinstance(keep, int) else hidden[:, keep].clone()

        return hook

    def _append_exits(self, head: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        if not self._rows:
            return None
        final = args[0]
        if not self._checked:
            self._check_norm(final)
        taken = [self._taken[layer].to(final.device)[rows] for layer in self.layers for rows in self._rows]
        return (torch.cat([final, self._to_head(torch.cat(taken))]), *args[1:])

    def _check_norm(self, final: torch.Tensor) -> None:
        final = final.detach()
        last = self._taken[len(self._blocks) - 1].detach().to(final.device)
        tolerance = 1e-4 if final.dtype in (torch.float32, torch.float64) else 2e-2
        reached = self._norm(last)
        if reached.shape != final.shape or not torch.allclose(
            reached, final, rtol=tolerance, atol=tolerance * float(final.abs().nan_to_num().amax()), equal_nan=True
        ):
            raise ModelError(
                "early exits are not possible here: the final norm found for this model does not turn its last block's "
                "output into what its output head reads. Use a method without `layers` (ICD, CAD), or omega=0 in LOL."
            )
        self._checked = True


def named_layers(model: Any, layers: str | Sequence[int]) -> tuple[int, ...]:
    """Layer numbers, or the blocks that "low" and "high" stand for in transformers 4's DoLa.

    Raises:
        ArgumentError: another name, no layer at all, or one that the model does not have.
    """
    count = len(decoder_blocks(model))
    if layers == "low":
        first = 1 if count > 2 else 0
        layers = range(first, max(min(count // 2, 20) - 1, first + 1), 2)
    elif layers == "high":
        layers = range(max(count // 2, count - 20, 1) - 1, count - 1, 2)
    elif isinstance(layers, str):
        raise ArgumentError(f'layers is {layers!r}; expected "low", "high" or a list of layer numbers.')
    return resolve_layers(layers, count)
