"""Checksums of everything that changes an answer, for a run's settings: no path says what lies there today."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from truthkit.decoding.engine.registry import PROMPT_ONLY
from truthkit.decoding.spec import parameters
from truthkit.models.identities import adapter_sha256, identity
from truthkit.models.shipped_amateur import shipped_amateur

if TYPE_CHECKING:
    from truthkit.evaluation.running.asking import Asking


def contents(asking: Asking) -> dict[str, Any]:
    """Settings with the first 16 digits of each checksum, and the commit of a model from the hub."""
    about = identity(asking.model, asking.processor)
    found = {
        "revision": about["commit"],
        "weights": _short(about["weights_sha256"]),
        "model_config": _short(about["config_sha256"]),
        "tokenizer": _short(about["tokenizer_sha256"]),
        "template": _short(about["template_sha256"]),
    }
    active = {name: adapter for name, adapter in about["adapters"].items() if adapter["active"]}
    if active:
        found["adapter"] = " ".join(_short(adapter["sha256"]) for adapter in active.values())
        found["adapter_revision"] = " ".join(adapter["commit"] or "" for adapter in active.values()).strip() or None
    if (amateur := asking.supplied.get("amateur") or _default_amateur(asking)) is not None:
        found["amateur"] = _short(_amateur(amateur, about["adapters"]))
    if asking.steerings:
        found["steering"] = " ".join(_short(_vectors(steering)) for steering in asking.steerings)
    return found


def _short(digest: str | None) -> Any:
    return digest and digest[:16]


def _default_amateur(asking: Asking) -> str | None:
    """What a decoder contrasts with that takes an amateur and is given none."""
    parts = [part for part in asking.decoder.every if "amateur" in parameters(part.name)]
    given = [part.options.get(name) for part in parts for name in ("amateur", "amateur_prompt")]
    return shipped_amateur(asking.model) if parts and given.count(None) == len(given) else None


def _amateur(amateur: Any, adapters: dict[str, Any]) -> str:
    """Of an adapter in the model, one in a folder or on the hub, or a model, alone or with its tokenizer."""
    if amateur == PROMPT_ONLY:
        return PROMPT_ONLY
    if isinstance(amateur, str):
        return str(adapters[amateur]["sha256"]) if amateur in adapters else adapter_sha256(amateur)
    return str(identity(amateur[0] if isinstance(amateur, tuple) else amateur)["weights_sha256"])


def _vectors(steering: Any) -> str:
    digest = hashlib.sha256()
    for layer, vector in sorted(getattr(steering, "vectors", {}).items()):
        digest.update(f"{layer} {vector.dtype}".encode() + vector.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()
