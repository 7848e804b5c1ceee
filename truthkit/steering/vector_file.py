"""The vector's own file: safetensors, with provenance and a checksum of everything in the header."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.files.json_text import parse, shown
from truthkit.files.tensors import tensors_sha256, write_tensors

_KEY, _FORMAT = "truthkit", 1


def write(path: str | PathLike[str], tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a header of JSON values to `path`, all of it or nothing."""
    header = {"format": _FORMAT, **header}
    header["sha256"] = tensors_sha256(tensors, header)
    write_tensors(Path(path), tensors, {_KEY: json.dumps(header)})


def is_of_vision(path: str | PathLike[str]) -> bool:
    """Whether it is a file of directions in a vision tower, by its header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return bool(parse((file.metadata() or {})[_KEY])["site"] == "vision")
    except (SafetensorError, KeyError, ValueError, TypeError, OSError):
        return False


def read(path: str | PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the header that `write` wrote.

    Raises:
        NotAvailableError: there is no such file.
        ArgumentError: it is no steering vector, or was cut short or changed.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise NotAvailableError(f"{str(path)!r}: there is no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no dict
        header = parse(metadata[_KEY])
        claimed, version = header.pop("sha256"), header["format"]
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, OSError, RuntimeError) as error:
        raise ArgumentError(
            f"{str(path)!r} is not a steering vector written by truthkit, or it was cut short ({error}). Other formats "
            "are read by truthkit.steering.formats."
        ) from error
    if version != _FORMAT:
        raise ArgumentError(
            f"{str(path)!r} has format {shown(version)}; this version of truthkit reads format {_FORMAT}."
        )
    if claimed != tensors_sha256(tensors, header):
        raise ArgumentError(f"{str(path)!r} was changed after it was written: its checksum does not fit its content.")
    return tensors, header
