"""The vector's own file: safetensors, with provenance and a checksum of everything in the header."""

from __future__ import annotations

import hashlib
import json
import os
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from truthkit.errors import ArgumentError, NotAvailableError

if TYPE_CHECKING:
    from truthkit.steering.vector import SteeringVector

_KEY, _FORMAT = "truthkit", 1


def _digest(tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)} ".encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def write(vector: SteeringVector, path: str | PathLike[str]) -> None:
    """Write `vector` to `path`, all of it or nothing."""
    from safetensors.torch import save

    path = Path(path)
    tensors = {f"{vector.site}.{layer}": direction.contiguous() for layer, direction in vector.directions.items()}
    header = {
        "format": _FORMAT,
        "site": vector.site,
        "layer_count": vector.layer_count,
        "provenance": vector.provenance,
    }
    header["sha256"] = _digest(tensors, header)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(save(tensors, metadata={_KEY: json.dumps(header)}))  # save_file's are for the owner alone
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read(path: str | PathLike[str]) -> SteeringVector:
    """Read what `write` wrote.

    Raises:
        NotAvailableError: there is no such file.
        ArgumentError: it is no steering vector, or was cut short or changed.
    """
    from safetensors import SafetensorError, safe_open

    from truthkit.steering.vector import SteeringVector

    path = Path(path)
    if not path.is_file():
        raise NotAvailableError(f"{str(path)!r}: there is no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no dict
        header = json.loads(metadata[_KEY])
        claimed = header.pop("sha256")
        site, count, version = header["site"], header["layer_count"], header["format"]
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ArgumentError(
            f"{str(path)!r} is not a steering vector written by truthkit, or it was cut short ({error}). Other formats "
            "are read by truthkit.steering.formats."
        ) from error
    if version != _FORMAT:
        raise ArgumentError(f"{str(path)!r} has format {version}; this version of truthkit reads format {_FORMAT}.")
    if claimed != _digest(tensors, header):
        raise ArgumentError(f"{str(path)!r} was changed after it was written: its checksum does not fit its content.")
    directions = {int(name.rpartition(".")[2]): tensor for name, tensor in tensors.items()}
    return SteeringVector(directions, count, site, header["provenance"])
