"""What a request asks for: the entry "truthkit" of its `extra_args`, or of `vllm_xargs` over HTTP."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from truthkit_vllm import spec

if TYPE_CHECKING:
    from vllm import SamplingParams

KEY = "truthkit"


@dataclass(frozen=True)
class Asked:
    """One view of a prompt, a steered request, or both.

    Attributes:
        decoder: "cad" or "icd"; None where the request stands for itself.
        options: those of the decoder's formula, all of them.
        amateur: "prompt" where the amateur may have no adapter of its own; None where its request decides.
        group: what the views of a prompt have in common, and no other request.
        view: which one it is; 0 is the main one.
        steer: the strengths of vectors, by name; those of strength 0 left out.
    """

    decoder: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    amateur: str | None = None
    group: str = ""
    view: int = 0
    steer: Mapping[str, float] = field(default_factory=dict)

    VIEWS = 2
    """How many views a prompt has: each of `spec.SIBLINGS` contrasts two."""


def asked(params: SamplingParams | None) -> Asked:
    """What a request asks for.

    Raises:
        ValueError: it is not understood, or cannot work beside the other sampling parameters.
    """
    told = (params.extra_args or {}).get(KEY) if params is not None else None
    if params is None or told is None:
        return Asked()
    if isinstance(told, str):  # vllm_xargs has no objects
        try:
            told = json.loads(told)
        except ValueError as error:
            raise ValueError(f"{KEY} is {told!r}, which is no JSON.") from error
    if not isinstance(told, dict) or told.keys() - {"decoder", "group", "view", "steer"}:
        raise ValueError(f"{KEY} is {told!r}; expected an object with decoder, group and view, or steer, or all.")
    steer = _strengths(told.get("steer", {}))
    if "decoder" not in told:
        return Asked(steer=steer)
    name, options = spec.decoder(str(told["decoder"]))
    if name not in spec.SIBLINGS:
        raise ValueError(f"decoder {name!r} is the engine's to choose, not a request's; here are {spec.SIBLINGS}.")
    group, view = told.get("group"), told.get("view")
    if not isinstance(group, str) or not group or isinstance(view, bool) or view not in range(Asked.VIEWS):
        raise ValueError(f"{KEY} has group {group!r} and view {view!r}; expected text, and 0 or 1.")
    _check_alike(params)
    amateur = options.pop("amateur", None)
    return Asked(name, options, amateur, group, int(view), steer)


def _strengths(told: Any) -> dict[str, float]:
    if not isinstance(told, dict) or not all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        for value in told.values()
    ):
        raise ValueError(f"steer is {told!r}; expected an object of vector names and numbers.")
    return {str(name): float(value) for name, value in told.items() if value}


def _check_alike(params: SamplingParams) -> None:
    """Raise unless all views of a prompt will choose the same token from the same scores."""
    if params.n != 1:
        raise ValueError(f"n is {params.n} for a view of a prompt; expected 1: ask for every answer by itself.")
    if params.temperature and params.seed is None:
        raise ValueError("a view of a prompt is sampled without a seed; pass one, the same for all views.")
    if params.repetition_penalty != 1.0:
        raise ValueError("repetition_penalty counts the prompt's tokens, which differ between views; leave it at 1.")
    if params.structured_outputs is not None:
        raise ValueError("structured_outputs may be ready for one view before the other; leave them out.")
