"""Where a training stands, in one safetensors file that is replaced as a whole.

It holds the adapter's weights, AdamW's two moments and the losses so far. The schedule, the order of the data and the
random numbers are functions of the step, so nothing else is needed to go on exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from truthkit.files.tensors import State, plan_sha256

_MOMENTS = ("exp_avg", "exp_avg_sq")


_NAMES = ("id", "path", "note")


def digest(plan: Mapping[str, Any]) -> str:
    """What identifies a training: the SHA-256 of everything that decides its result, but not of where it lies."""

    def content(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: content(part) for key, part in value.items() if key not in _NAMES}
        return [content(part) for part in value] if isinstance(value, list | tuple) else value

    return plan_sha256(content(plan))


class Loss(NamedTuple):
    """The two terms of a step's loss.

    Attributes:
        cross_entropy: in nats per answer token.
        contrastive: SimCTG's, per pair of tokens, a difference of cosines; 0 without.
    """

    cross_entropy: float
    contrastive: float = 0.0


class Checkpoint:
    """The record in `folder`.

    Args:
        folder: made when there is something to write.
        plan: the training's digest; a record of another one is refused.
        every: seconds between records.
    """

    def __init__(self, folder: Path, plan: str, *, every: float):
        self._state = State(folder / "state.safetensors", plan, work="training", every=every)

    def resume(self, weights: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> list[Loss]:
        """Restore weights and optimizer in place; the losses of the steps that are done, [] for a fresh start.

        Raises:
            ArgumentError: the record is of another training, or cannot be read.
        """
        if (tensors := self._state.read()) is None:
            return []
        losses = [Loss(*terms) for terms in tensors["losses"].tolist()]
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(tensors[f"weight.{name}"])
                moments = {kind: tensors[f"{kind}.{name}"].to(weight.device) for kind in _MOMENTS}
                optimizer.state[weight] = {"step": torch.tensor(float(len(losses))), **moments}
        return losses

    def due(self) -> bool:
        """Whether it is time for a record."""
        return self._state.due()

    def save(self, weights: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer, losses: list[Loss]) -> None:
        """Write down where it stands."""
        tensors = {"losses": torch.tensor(losses, dtype=torch.float64)}
        for name, weight in weights.items():
            tensors[f"weight.{name}"] = weight.detach()
            for kind in _MOMENTS:
                tensors[f"{kind}.{name}"] = optimizer.state[weight][kind]
        self._state.write(tensors)
