"""The images among the arguments of a call, and their places among its tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from truthkit.errors import ArgumentError
from truthkit.hf.wrapping import replaced_method

ImageInputs = dict[str, Any]
"""What an image processor made of the images of a batch, under the names of the model's `get_image_features`."""

TOKEN_TYPES = {"token_type_ids", "mm_token_type_ids"}
"""Arguments that say of every token what it is."""

_PIXELS = ("pixel_values", "pixel_values_images", "image_patches")


def placeholders(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Where `ids` hold an image feature's place; nowhere for a text-only model."""
    token = getattr(model.config, "image_token_id", None)
    return torch.zeros_like(ids, dtype=torch.bool) if token is None else torch.eq(ids, token)


def token_types(model: Any, ids: torch.Tensor, length: int) -> dict[str, torch.Tensor]:
    """What the model's processor says of the tokens `ids`, the first `length` of which are the prompt, if it says
    anything.
    """
    names = TOKEN_TYPES & inspect.signature(model.forward).parameters.keys()
    if not names or image_encoder(model) is None:
        return {}
    types = placeholders(model, ids).int()
    types[:, length:] = 0
    if model.config.model_type == "paligemma":  # 0 is what sees all of itself: the whole prompt
        types = (torch.arange(ids.shape[1], device=ids.device) >= length).int().expand_as(ids).clone()
    return dict.fromkeys(names, types)


def token_types_of(model: Any, types: torch.Tensor, ids: torch.Tensor, length: int) -> torch.Tensor:
    """Token types of rewritten prompts: an image's where the placeholders are now, else those of text.

    Args:
        model: with the vision tower.
        types: of the prompts as they were, `length` tokens, and of what follows.
        ids: of the prompts as they are.
        length: see `types`.
    """
    before, generated = types.tensor_split([length], dim=1)
    of_images = types.new_tensor(bool(before.any()))
    new = torch.where(placeholders(model, ids), of_images, torch.zeros_like(of_images))
    return torch.cat([new, generated], dim=1)


def image_encoder(model: Any) -> Callable[..., Any] | None:
    """The function that `generate` encodes images with; None for a text-only model."""
    for owner in (model.base_model, model):
        if (encode := getattr(owner, "get_image_features", None)) is not None:
            return encode
    return None


def take_image_inputs(model: Any, kwargs: dict[str, Any]) -> ImageInputs:
    """Those of a call's arguments that describe images; they stay in `kwargs`.

    Raises:
        ArgumentError: there are videos, or images that were encoded by somebody else.
    """
    if (encode := image_encoder(model)) is None:
        return {}
    for name in ("pixel_values_videos", "mm_encoder_outputs"):
        if kwargs.get(name) is not None:
            raise ArgumentError(f"{name} was given, but truthkit's decoders take images as pixel_values only.")
    names = [name for name in inspect.signature(encode).parameters if name != "kwargs"]
    return {name: kwargs[name] for name in names if kwargs.get(name) is not None}


def has_pixels(inputs: ImageInputs) -> bool:
    """Whether there is an image among these arguments."""
    return any(inputs.get(name) is not None for name in _PIXELS)


def drop_pixels(kwargs: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments without the pixels, whose features it is given instead."""
    return {name: value for name, value in kwargs.items() if name not in _PIXELS}


def encoded_already(model: Any, features: Any) -> AbstractContextManager[None]:
    """Inside this block `model` takes `features` for its images, instead of encoding them."""
    return replaced_method(model, "get_image_features", lambda _own: lambda *_args, **_kwargs: features)


def scattered(embeddings: torch.Tensor, places: torch.Tensor, output: Any) -> torch.Tensor:
    """`embeddings` (rows, length, hidden) with the images' features at the `places` (rows, length)."""
    features = torch.cat([image.reshape(-1, embeddings.shape[-1]) for image in output.pooler_output])
    return embeddings.masked_scatter(places[..., None], features.to(embeddings))
