"""Where an extraction stands, on disk, so that a killed one goes on."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import torch

from truthkit.activations.moments import Moments
from truthkit.activations.spool import Spool
from truthkit.errors import ArgumentError

_EVERY = 10.0
"""Seconds between records: little is lost, and writing takes no share of the time."""


class Progress:
    """The record of one extraction in `folder`.

    Args:
        folder: holds `progress.safetensors`; nothing is written unless `kept`.
        plan: everything that decides the result; a record of another plan is refused.
        kept: whether to keep a record at all.
    """

    def __init__(self, folder: Path, plan: dict[str, Any], *, kept: bool):
        self._path, self._kept = folder / "progress.safetensors", kept
        self._plan = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
        self._last = time.monotonic()

    def resume(self, moments: dict[str, Moments]) -> int:
        """Restore `moments` from the record; how many batches they hold.

        Raises:
            ArgumentError: the record is of another extraction, or cannot be read.
        """
        if not self._kept or not self._path.is_file():
            return 0
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(self._path)
            plan = bytes(tensors["plan"].tolist()).hex()
        except (SafetensorError, KeyError) as error:
            raise ArgumentError(
                f"the checkpoint {str(self._path.parent)!r} cannot be read ({error}); remove it."
            ) from error
        if plan != self._plan:
            raise ArgumentError(
                f"the checkpoint {str(self._path.parent)!r} belongs to another extraction (other pairs, model, "
                "layers or settings); remove it, or name another folder."
            )
        for name, part in moments.items():
            part.restore(name, tensors)
        return int(tensors["done"])

    def note(self, done: int, moments: dict[str, Moments], spool: Spool, *, last: bool) -> None:
        """Write down that `done` batches are in, if it is time to."""
        if not self._kept or not (last or time.monotonic() - self._last > _EVERY):
            return
        from safetensors.torch import save_file

        spool.flush()
        tensors = {"done": torch.tensor(done), "plan": torch.tensor(list(bytes.fromhex(self._plan)), dtype=torch.uint8)}
        for name, part in moments.items():
            tensors |= part.tensors(name)
        part_file = self._path.with_suffix(".part")
        save_file(tensors, part_file)
        os.replace(part_file, self._path)
        self._last = time.monotonic()
