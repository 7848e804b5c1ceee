"""32 photographs through every transform and three image processors, set up as published models have them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil, Qwen2VLImageProcessorPil, SiglipImageProcessorPil

from truthkit.images.reading import read_image
from truthkit.images.transforms import TRANSFORMS, content_seed, processor_size, transformed

PROCESSORS: dict[str, Callable[[], Any]] = {
    "clip": lambda: CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
    "siglip": lambda: SiglipImageProcessorPil(size={"height": 224, "width": 224}),
    "qwen2_vl": lambda: Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 252 * 252}),
}


@cache
def read(path: Path) -> Image.Image:
    return read_image(path)


@pytest.fixture
def photographs(shared_data: Path) -> list[Image.Image]:
    """Shared by the tests: leave them as they are."""
    folder = shared_data / "data" / "coco256" / "images"
    files = sorted(folder.glob("*/*.jpg"))[::8]
    if len(files) < 32:
        pytest.skip(f"{folder} holds no 256 photographs")
    return [read(file) for file in files[:32]]


@pytest.mark.parametrize("kind", PROCESSORS)
def test_processor_size(kind: str) -> None:
    processor = PROCESSORS[kind]()
    expected = {"clip": (336, 336), "siglip": (224, 224), "qwen2_vl": None}[kind]
    assert processor_size(processor) == expected
    holder = type("Processor", (), {"image_processor": processor})()
    assert processor_size(holder) == expected


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("kind", PROCESSORS)
def test_shapes(kind: str, name: str, photographs: list[Image.Image]) -> None:
    processor = PROCESSORS[kind]()
    size = processor_size(processor)
    for image in photographs:
        seed = content_seed(image, "What is in the image?")
        found, _ = transformed(image, name, seed=seed, size=size)
        assert found.size == (size if name == "crop" and size else image.size)
        batch = processor(images=found, return_tensors="np")
        values = batch["pixel_values"]
        assert np.isfinite(values).all()
        assert values.std() > 0
        if kind == "qwen2_vl":
            (frames, rows, columns) = batch["image_grid_thw"][0]
            assert values.shape == (frames * rows * columns, 2 * 3 * 14 * 14)
            assert frames == 1
            assert rows * columns * 14 * 14 <= 252 * 252
            assert (rows > columns) == (image.height > image.width)
        else:
            assert values.shape == (1, 3, *reversed(size or ()))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_pictures_are_repeatable_and_change(name: str, photographs: list[Image.Image]) -> None:
    for image in photographs:
        seed = content_seed(image, "")
        first, again = (transformed(image, name, seed=seed)[0] for _ in range(2))
        assert first == again
        assert first != image
