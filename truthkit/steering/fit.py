"""Whether a vector belongs to a model: its shape, and the model that it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from truthkit.errors import ModelError
from truthkit.hf.sites import decoder_blocks, site_width
from truthkit.hf.wrapping import plain_model
from truthkit.models.identities import known_identity


def model_id(model: Any) -> str:
    """What the model is called: its hub id, or the last part of the folder it was loaded from."""
    name = str(getattr(model.config, "name_or_path", "") or "")
    return name.rstrip("/\\").replace("\\", "/").rpartition("/")[2] if _is_path(name) else name


def check_shape(model: Any, site: str, features: int, layers: Sequence[int], layer_count: int | None) -> None:
    """Raise unless a vector of this shape fits `model`.

    Raises:
        ModelError: the model has another number of blocks or features, or lacks one of the layers.
    """
    plain = plain_model(model)
    blocks, width = len(decoder_blocks(plain)), site_width(plain, site)
    fits = layers[-1] < blocks if layer_count is None else layer_count == blocks
    if not fits or width != features:
        made = f"at least {layers[-1] + 1}" if layer_count is None else layer_count
        raise ModelError(
            f"the vector is for a model of {made} decoder blocks with {features} features at site {site!r}, but "
            f"{type(plain).__name__} has {blocks} with {width}; extract one from this model."
        )


def check_origin(model: Any, made: dict[str, Any]) -> None:
    """Raise unless `model` is the one that `made`, a vector's note of its model, tells of.

    Raises:
        ModelError: it is another one, by its hub id, or by its configuration or weights.
    """
    plain = plain_model(model)
    if _is_other(made, model):
        raise ModelError(
            f"the vector was made from {made['id']!r}, but this model is {model_id(plain)!r}, with another "
            "configuration or other weights. If they share their activations' space (a fine-tuned copy, say), pass "
            "allow_other_model=True, or --allow-other-model on the command line."
        )


def _is_other(made: dict[str, Any], model: Any) -> bool:
    """Whether `model` is another model than the one that `made` tells of.

    A hub id says it all. Anything else is a place, where one model may stand at two and two at one, so settings and
    weights are compared, unless they were not noted or stand in another dtype.
    """
    plain = plain_model(model)
    name = model_id(plain)
    if not made.get("id") or not name:
        return False
    if made["id"] == name and not _is_path(str(plain.config.name_or_path)):
        return False
    if made.get("weights_sha256") is None or made.get("dtype") != str(plain.dtype).removeprefix("torch."):
        return bool(made["id"] != name)
    found = known_identity(model)
    return any(made.get(key) != found[key] for key in ("config_sha256", "weights_sha256"))


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1
