"""Tensors in safetensors files: their checksum, and the state of work that may be killed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from truthkit.errors import ArgumentError
from truthkit.files.writing import replacing, writing


def tensors_sha256(tensors: Mapping[str, torch.Tensor], header: Any = None) -> str:
    """Checksum of tensors with their names, dtypes and shapes, behind a header of JSON values; hexadecimal."""
    digest = hashlib.sha256(b"" if header is None else json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)} ".encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, all of it or nothing.

    Raises:
        NotAvailableError: it can't be written, the disk is full for one.
    """
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with writing(path), replacing(path) as part:
        part.write_bytes(save(whole, metadata=metadata))  # save_file's are for the owner alone


class State:
    """Where long work stands, in one file that is replaced as a whole; a file of other work is refused.

    Args:
        path: the file; its folder is the checkpoint that errors name.
        plan: SHA-256 of everything that decides the result.
        work: what the work is called.
        every: seconds between records, so that writing takes no share of the time.
    """

    def __init__(self, path: Path, plan: str, *, work: str, every: float):
        self._path, self._plan, self._work, self._every = path, plan, work, every
        self._last = time.monotonic()

    def read(self) -> dict[str, torch.Tensor] | None:
        """What was written last; None where nothing was.

        Raises:
            ArgumentError: it is of other work, or cannot be read.
        """
        if not self._path.is_file():
            return None
        folder = str(self._path.parent)
        try:
            tensors: dict[str, torch.Tensor] = load_file(self._path)
            plan = tensors.pop("plan").numpy().tobytes().hex()
        except (SafetensorError, KeyError, OSError, RuntimeError, TypeError) as error:
            raise ArgumentError(f"the checkpoint {folder!r} cannot be read ({error}); remove it.") from error
        if plan != self._plan:
            raise ArgumentError(
                f"the checkpoint {folder!r} belongs to another {self._work} (other data, model or settings); remove "
                "it, or name another folder."
            )
        return tensors

    def due(self) -> bool:
        """Whether it is time for a record."""
        return time.monotonic() - self._last >= self._every

    def write(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write down where the work stands.

        Raises:
            NotAvailableError: it can't be written, the disk is full for one; the record before is kept.
        """
        from safetensors.torch import save_file

        plan = torch.tensor(list(bytes.fromhex(self._plan)), dtype=torch.uint8)
        with writing(self._path), replacing(self._path) as part:
            save_file({**tensors, "plan": plan}, part)  # without a copy of it all in memory
        self._last = time.monotonic()


def plan_sha256(plan: Any) -> str:
    """What identifies a plan of JSON values; hexadecimal."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
