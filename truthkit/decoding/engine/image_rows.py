"""Which images each view sees: all of them through the vision tower in one call, then dealt out to the rows.

An image-text model reads its images once, at the prompt: the features of every image take the places of placeholder
tokens. `ImageRows` encodes the images of all views together and hands a forward those of its rows, in order.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from truthkit.decoding.engine.image_inputs import ImageInputs, has_pixels, image_encoder, placeholders
from truthkit.decoding.engine.source import (
    Asked,
    ImageFeatures,
    ImageRewrite,
    Notes,
    Plainly,
    Source,
    features_of,
    no_images,
)
from truthkit.errors import ArgumentError, ModelError
from truthkit.hf.sites import input_device

_NO_IMAGES = (
    "this decoder compares images, but there are none; give generate the processor's outputs whole, or, to a logits "
    "processor, images=..."
)


class ImageRows:
    """The images of a group of views.

    Args:
        model: the model with the vision tower; a text-only one is fine as long as there are no images.
        rewrites: for each view how its images come from the main ones; None: they are the same.
    """

    def __init__(self, model: Any, rewrites: Sequence[ImageRewrite | None]):
        self.model, self._rewrites = model, tuple(rewrites)
        self._encode = image_encoder(model)
        self._names = set(inspect.signature(self._encode).parameters) if self._encode else set()
        self.changed = any(rewrites)
        if self.changed and self._encode is None:
            if _takes_pixels(model):
                raise ModelError(
                    f"{type(model).__name__} sees images through cross-attention: it has no get_image_features. Use a "
                    "model that puts its images among the tokens."
                )
            raise ModelError(
                f"{type(model).__name__} is a text-only model: it has no get_image_features. Use an image-text model."
            )
        self._views: list[list[ImageFeatures] | None] = []
        self._inputs: list[ImageInputs | None] = []
        self._of_prompt: list[range] = []
        self._like: Any = None
        self.notes: Notes = {}
        """What the rewrites noted about the last prompts that they saw; of several, the first one's word."""
        self.asked: Asked | None = None
        """What was read for a rewrite's question about these prompts."""

    @property
    def ready(self) -> bool:
        """Whether there are encoded images."""
        return bool(self._views)

    def forget(self) -> None:
        """Drop the images."""
        self._views, self._inputs, self._of_prompt, self._like = [], [], [], None
        self.asked = None

    def encode(
        self, inputs: ImageInputs, ids: torch.Tensor, mask: torch.Tensor | None, plainly: Plainly = nullcontext
    ) -> None:
        """Run the vision tower over the images of all views.

        Args:
            inputs: the main view's image inputs.
            ids: the prompts, shape (batch, length); their placeholders say whose image is whose.
            mask: their 2-D mask, or None for no padding.
            plainly: see `Source`.
        """
        if not inputs and not any(self._rewrites):
            return
        if self._encode is None:
            raise ModelError(
                f"{type(self.model).__name__} is a text-only model, but the prompts that its view is to read hold "
                "images; use an image-text amateur with the same tokenizer, or a prompt-only one."
            )
        if not has_pixels(inputs) and any(rewrite not in (None, no_images) for rewrite in self._rewrites):
            raise ArgumentError(_NO_IMAGES)
        kept = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        prompts = [row[where].tolist() for row, where in zip(ids, kept, strict=True)]
        source = Source(inputs, prompts, self.model, self._run, plainly)
        own: dict[int, ImageInputs | None] = {}
        made: dict[int, list[ImageFeatures]] = {}
        notes: Notes = {}
        for i, rewrite in enumerate(self._rewrites):
            if rewrite is not None:
                source.notes = {}
                found = rewrite(source)
                if found is None or isinstance(found, dict):
                    own[i] = found
                else:
                    made[i] = list(found)
                notes = source.notes | notes
        self.notes, self.asked = notes, source.asked
        seen = features_of(source.seen) if source.seen is not None else []
        parts = [part for part in own.values() if part is not None]
        for part in parts:
            _check_like(part, inputs)
        main = len(own) + len(made) < len(self._rewrites)
        if main and not seen:
            parts.insert(0, inputs)
        encoded = features_of(self._run(_joined(parts))) if parts else []
        count = len(encoded) // max(len(parts), 1)
        chunks = [encoded[start : start + count] for start in range(0, len(encoded), count)] if count else []
        shared = seen or (chunks.pop(0) if main else [])
        for i in range(len(self._rewrites)):
            images = shared if i not in own else chunks.pop(0) if own[i] is not None else None
            self._views.append(made.get(i, images))
            self._inputs.append(own.get(i, inputs))
        places = placeholders(self.model, ids).sum(dim=1).tolist()
        dealt = [_dealt(view, places) for view in self._views if view]
        self._of_prompt = dealt[0] if dealt else [range(0)] * len(ids)

    def _run(self, inputs: ImageInputs) -> Any:
        if self._encode is None or not has_pixels(inputs):
            raise ArgumentError(_NO_IMAGES)
        if "qformer_input_ids" in self._names and "qformer_input_ids" not in inputs:
            raise ModelError(
                f"{type(self.model).__name__} reads its images in the light of the question, which a logits processor "
                "does not see; use the decoder as a context manager around generate."
            )
        given = {name: inputs[name] for name in self._names & inputs.keys()}
        device = input_device(self.model)
        given = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in given.items()}
        with torch.no_grad():
            self._like = self._encode(**given, return_dict=True)
        return self._like

    def output(self, batch: int, views: Sequence[int] | None = None) -> Any:
        """What `get_image_features` would return for `batch` rows of each view, view-major.

        More rows than there were prompts are the beams or samples of each prompt in turn.
        """
        chosen = range(len(self._views)) if views is None else views
        images = [
            view[i]
            for view in (self._views[v] for v in chosen)
            if view is not None
            for of_prompt in self._of_prompt
            for _ in range(batch // len(self._of_prompt))
            for i in of_prompt
        ]
        return _output(self._like, images) if images else None

    def input(self, name: str, batch: int) -> torch.Tensor | None:
        """One image input (an entry per image) for `batch` rows of each view, view-major; None where there is none."""
        rows = [
            inputs[name][i]
            for inputs in self._inputs
            if inputs is not None and inputs.get(name) is not None
            for of_prompt in self._of_prompt
            for _ in range(batch // len(self._of_prompt))
            for i in of_prompt
        ]
        return torch.stack(rows) if rows else None


def _takes_pixels(model: Any) -> bool:
    return "pixel_values" in inspect.signature(model.forward).parameters


def _output(like: Any, images: Sequence[ImageFeatures]) -> Any:
    """The images' features in the form of `like`, an output of the same encoder."""
    pooled: Any = [image.features for image in images]
    fields: dict[str, Any] = {
        "pooler_output": torch.stack(pooled) if isinstance(like.pooler_output, torch.Tensor) else pooled
    }
    if getattr(like, "deepstack_features", None):
        fields["deepstack_features"] = [list(layer) for layer in zip(*(image.deep for image in images), strict=True)]
    return type(like)(**fields)


def _joined(parts: Sequence[ImageInputs]) -> ImageInputs:
    return {
        name: torch.cat([part[name].to(value) for part in parts]) if isinstance(value, torch.Tensor) else value
        for name, value in parts[0].items()
        if all(name in part for part in parts)  # a processor may say more than the model asks for
    }


def _check_like(part: ImageInputs, inputs: ImageInputs) -> None:
    """Raise unless a view's images take the same places as the prompt's own."""
    for name, value in inputs.items():
        if not isinstance(value, torch.Tensor):
            continue
        other = part.get(name)
        found = tuple(other.shape) if isinstance(other, torch.Tensor) else None
        same = found == tuple(value.shape)
        if same and not value.is_floating_point() and "mask" not in name and isinstance(other, torch.Tensor):
            same = torch.equal(other.to(value.device), value)  # sizes and grids
        if not same:
            raise ArgumentError(
                f"the view's images give {name} of shape {found}, the prompt's own {tuple(value.shape)}, or of other "
                "image sizes; pass the very images that the processor was given, in the same order."
            )


def _dealt(images: Sequence[ImageFeatures], places: Sequence[int]) -> list[range]:
    """Which images each prompt has, by its number of placeholders."""
    sizes = [len(image.features) for image in images]
    dealt, start = [], 0
    for count in places:
        stop, filled = start, 0
        while filled < count and stop < len(sizes):
            filled += sizes[stop]
            stop += 1
        if filled != count:
            break
        dealt.append(range(start, stop))
        start = stop
    if len(dealt) != len(places) or any(sizes[start:]):
        raise ArgumentError(
            f"the prompts have room for {' + '.join(map(str, places))} image tokens, but the {len(sizes)} images make "
            f"{' + '.join(map(str, sizes))}; give each prompt its images, in order, through the processor."
        )
    return dealt
