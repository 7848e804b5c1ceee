"""What vector files hold, checked by type after they are parsed and before anything is made of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch

from truthkit.errors import ArgumentError
from truthkit.files.json_text import shown
from truthkit.files.shapes import FINITE, INTEGER, NUMBER, TEXT, check, optional

_LONGEST = 1 << 24  # features, more than any model has: what is larger is damage, and would fill the memory

_SCORE = {"auc!": NUMBER, "low": NUMBER, "high": NUMBER, "p": NUMBER}
_TRIAL = {"layer!": INTEGER, "strength!": NUMBER, "effect": optional(NUMBER), "divergence": NUMBER}
ABOUT = {
    "layer_count!": optional(INTEGER),
    "site!": TEXT,
    "provenance!": {
        "model": {"id": optional(TEXT), "type": optional(TEXT)},
        "history": [TEXT],
        "scores": {"*": _SCORE},
        "selection": {
            "layer": INTEGER,
            "strength": FINITE,
            "positions": TEXT,
            "mode": TEXT,
            "unsteered": NUMBER,
            "trials": [_TRIAL],
        },
    },
}
"""The header of a vector's own file and of an .npz."""


def check_about(about: Any, file: str) -> dict[str, Any]:
    """The header, if it is one.

    Raises:
        ArgumentError: a field is missing or of another type.
    """
    check(about, ABOUT, f"the header of {file}")
    for layer in about["provenance"].get("scores", {}):
        if not re.fullmatch(r"\d{1,5}", layer):
            raise ArgumentError(f"the header of {file} has scores of layer {shown(layer)}; expected a number.")
    return dict(about)


def by_layer(named: Iterable[tuple[Any, Any]], file: str) -> dict[int, torch.Tensor]:
    """Directions by layer, from names that end in ".12" or "_12", or are "12".

    Raises:
        ArgumentError: a name has no such end or a layer comes twice; or it is no tensor of a vector of real numbers.
    """
    found: dict[int, torch.Tensor] = {}
    for name, tensor in named:
        number = re.fullmatch(r"(?:.*[._])?(\d{1,5})", name, re.DOTALL) if isinstance(name, str) else None
        if number is None or int(number[1]) in found:
            twice = " again" if number else ""
            raise ArgumentError(f"{file} holds {shown(name)}{twice}; expected names that end in one layer's number.")
        plain = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and not tensor.is_meta
        if not plain or not tensor.dtype.is_floating_point or not 0 < tensor.numel() <= _LONGEST:
            what = f"{tensor.dtype} of shape {tuple(tensor.shape)}" if plain else type(tensor).__name__
            raise ArgumentError(f"{file} has {shown(name)}, which is {what}; expected a vector of real numbers.")
        found[int(number[1])] = tensor
    return found
