"""The amateur that comes along with the bundled model: a LoRA adapter in this package, made by `recipes/amateur.py`."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from truthkit.hf.wrapping import plain_model
from truthkit.models.identities import known_identity

FOLDER = Path(__file__).parent / "smollm2_amateur"
"""The adapter, beside this file."""


def shipped_amateur(model: Any) -> str | None:
    """The folder of the amateur that was made for `model`; None where there is none.

    A model is known by its weights, in any of the dtypes that it can be loaded in, never by its name. Other numbers,
    a quantised or merged copy, or an adapter that is on make another model of it. The weights are looked at only
    where the sizes agree, and once.
    """
    plain, base = plain_model(model), _base()
    config = getattr(plain, "config", None)
    if any(getattr(config, name, None) != size for name, size in base["sizes"].items()) or _adapted(plain):
        return None
    return str(FOLDER) if known_identity(model)["weights_sha256"] in base["weights_sha256"].values() else None


@cache
def _base() -> dict[str, Any]:
    """Sizes and checksums of the model that the amateur is for."""
    found: dict[str, Any] = json.loads((FOLDER / "base.json").read_text(encoding="utf-8"))
    return found


def _adapted(plain: Any) -> bool:
    return any(
        module.active_adapters and not module.disable_adapters
        for module in plain.modules()
        if hasattr(module, "adapter_layer_names")
    )
