"""The images that a user hands to a decoder, and their way through the model's own image processor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from truthkit.decoding.engine.image_inputs import ImageInputs
from truthkit.errors import ArgumentError
from truthkit.images.reading import as_it_lies, as_transformers_loads, read_image
from truthkit.images.transforms import processor_size

_ONE = (str, os.PathLike, bytes, Image.Image)
"""What stands for one image."""

_SIZED = ("image_sizes", "image_grid_thw", "pixel_attention_mask")
"""What a processor returns where an image's size decides how many tokens it takes."""

_CLOSE = 0.05
"""Which share of the pixels' norm they may differ by: a picture that is turned or mirrored differs by far more."""


class Pictures:
    """Images in the order of the prompts.

    Args:
        processor: the model's processor, or its image processor.
        images: one image; a list with one image per prompt; or a list with a list of images per prompt. An image is a
            Pillow image, a path or a file's bytes.

    Raises:
        ArgumentError: no images, something else than images, or a processor without an image processor.
    """

    def __init__(self, processor: Any, images: Any):
        if isinstance(images, _ONE):
            images = [images]
        if not isinstance(images, Sequence) or not images:
            raise ArgumentError(
                f"images is {images!r}; expected an image, a list with one per prompt, or a list of lists of images."
            )
        nested = [list(image) if isinstance(image, list | tuple) else [image] for image in images]
        self.rows = [[read_image(image) for image in row] for row in nested]
        self._given, self._other_ways = nested, [as_it_lies, as_transformers_loads]
        self._processor = getattr(processor, "image_processor", processor)
        defaults = getattr(getattr(processor, "valid_processor_kwargs", None), "_defaults", {})
        self._options = defaults.get("images_kwargs", {}) | (getattr(processor, "images_kwargs", None) or {})
        if not callable(self._processor) or not hasattr(self._processor, "preprocess"):
            raise ArgumentError(
                f"processor is a {type(processor).__name__}, which has no image processor; pass the model's processor, "
                "as tk.load or AutoProcessor returns it."
            )

    def __len__(self) -> int:
        """How many prompts there are images for."""
        return len(self.rows)

    def for_prompts(self, count: int) -> list[list[Image.Image]]:
        """The images of each of `count` prompts; one prompt takes a whole flat list.

        Raises:
            ArgumentError: there are more or fewer images than prompts.
        """
        if count == 1 and all(len(row) == 1 for row in self.rows):
            return [[image for row in self.rows for image in row]]
        if count != len(self.rows):
            raise ArgumentError(
                f"images holds the images of {len(self.rows)} prompts, but there are {count}; pass one entry per "
                "prompt (a list of its images where a prompt has several)."
            )
        return self.rows

    def as_in(self, inputs: ImageInputs, count: int) -> list[list[Image.Image]]:
        """The images of each of `count` prompts, read as they were for the main view's `inputs`.

        A file opened by Pillow goes into a processor as it lies: not turned upright, transparency dropped.

        Raises:
            ArgumentError: however they are read, the image processor does not make `inputs` of them.
        """
        rows, ways = self.for_prompts(count), list(self._other_ways)
        while not self._make(rows, inputs):
            if not ways:
                raise ArgumentError(
                    "the images given to the decoder do not give the pixel_values of the prompt; pass the very images "
                    "that the processor was given, in the same order, and options of a call also as "
                    "processor.images_kwargs = {...}."
                )
            read = ways.pop(0)
            self.rows = [[read(image) for image in row] for row in self._given]
            rows = self.for_prompts(count)
        return rows

    def _make(self, rows: list[list[Image.Image]], inputs: ImageInputs) -> bool:
        made = self.processed(rows, "cpu")
        return all(_alike(made[name], value.cpu()) for name, value in inputs.items() if name in made)

    def inputs(self, device: Any) -> ImageInputs:
        """What the image processor makes of all images, as tensors on `device`."""
        return self.processed(self.rows, device)

    def processed(self, rows: list[list[Image.Image]], device: Any) -> ImageInputs:
        """What the image processor makes of the images of each prompt, as tensors on `device`."""
        images = rows if _keeps_prompts(self._processor) else [image for row in rows for image in row]
        made = self._processor(images=images, return_tensors="pt", **self._options)
        return {name: value.to(device) for name, value in made.items() if isinstance(value, torch.Tensor)}

    def crop_size(self, inputs: ImageInputs) -> tuple[int, int] | None:
        """What a random crop is resized to: the processor's size, or None, the image's own, where its size counts."""
        if any(name in inputs for name in _SIZED) or self._options.get("crop_to_patches"):
            return None
        return processor_size(self._processor)


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether they are the same but for rounding, and for what one library resizes otherwise than the next."""
    if one.shape != other.shape:
        return False
    if not other.is_floating_point():
        return torch.equal(one, other.to(one.dtype))
    return bool((one.double() - other.double()).norm() <= _CLOSE * other.double().norm())


def _keeps_prompts(image_processor: Any) -> bool:
    """Whether the tensors have one entry per prompt, with its images inside (Idefics, SmolVLM)."""
    return "idefics" in type(image_processor).__name__.lower() or "smolvlm" in type(image_processor).__name__.lower()
