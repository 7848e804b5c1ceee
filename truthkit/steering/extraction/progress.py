"""Where an extraction stands, on disk, so that a killed one goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from truthkit.activations.moments import Moments
from truthkit.activations.spool import Spool
from truthkit.files.tensors import State, plan_sha256

_EVERY = 10.0
"""Seconds between records."""


class Progress:
    """The record of one extraction in `folder`.

    Args:
        folder: holds `progress.safetensors`; nothing is written unless `kept`.
        plan: everything that decides the result; a record of another plan is refused.
        kept: whether to keep a record at all.
    """

    def __init__(self, folder: Path, plan: dict[str, Any], *, kept: bool):
        self._state = State(folder / "progress.safetensors", plan_sha256(plan), work="extraction", every=_EVERY)
        self._kept = kept

    def resume(self, moments: dict[str, Moments]) -> int:
        """Restore `moments` from the record; how many batches they hold.

        Raises:
            ArgumentError: the record is of another extraction, or cannot be read.
        """
        if not self._kept or (tensors := self._state.read()) is None:
            return 0
        for name, part in moments.items():
            part.restore(name, tensors)
        return int(tensors["done"])

    def note(self, done: int, moments: dict[str, Moments], spool: Spool, *, last: bool) -> None:
        """Write down that `done` batches are in, if it is time to."""
        if not self._kept or not (last or self._state.due()):
            return
        spool.flush()
        tensors = {"done": torch.tensor(done)}
        for name, part in moments.items():
            tensors |= part.tensors(name)
        self._state.write(tensors)
