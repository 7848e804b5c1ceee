"""The reader of truthkit's vector files: safetensors, with provenance and a checksum in the header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

_KEY, _FORMAT = "truthkit", 1


def read(path: str, layers: Sequence[int] | None = None) -> dict[int, torch.Tensor]:
    """The directions that a file has, by layer number, each of shape (features,).

    Args:
        path: as `SteeringVector.save` or `truthkit extract` wrote it.
        layers: those to take, negative ones from the model's last block; None takes them all where the file has one, or
            was cut to chosen ones.

    Raises:
        ValueError: the file is no such vector, or damaged, or not one of decoder blocks, or has no such layer.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no dict
        header = json.loads(metadata[_KEY])
        claimed, version, site = header.pop("sha256"), header["format"], header["site"]
    except (SafetensorError, KeyError, TypeError, AttributeError, OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path!r} is not a steering vector written by truthkit ({error!r}).") from error
    if version != _FORMAT:
        raise ValueError(f"{path!r} has format {version!r}; expected {_FORMAT}.")
    if claimed != _sha256(tensors, header):
        raise ValueError(f"{path!r} was changed after it was written: its checksum does not fit its content.")
    if site != "block":
        raise ValueError(f"{path!r} steers {site!r}; expected a vector of decoder blocks, whose site is 'block'.")
    directions = {int(name.removeprefix("block.")): tensor for name, tensor in tensors.items()}
    provenance: Mapping[str, Any] = header.get("provenance") or {}
    if layers is None:
        if len(directions) > 1 and "selection" not in provenance:
            raise ValueError(f"{path!r} has {len(directions)} layers; name those to steer, as in {path}:layers=14.")
        return directions
    count = header.get("layer_count") or 0
    chosen = [layer + count if layer < 0 else layer for layer in layers]
    if missing := [layer for layer in chosen if layer not in directions]:
        raise ValueError(f"{path!r} has no layer {missing[0]}; it has {sorted(directions)}.")
    return {layer: directions[layer] for layer in chosen}


def _sha256(tensors: Mapping[str, torch.Tensor], header: Any) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)} ".encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
