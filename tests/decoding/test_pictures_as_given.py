"""The views' pictures are prepared as the main one was: turned or not, transparent or not, by options of a call."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import truthkit as tk
from tests.tiny_vlm import picture, tiny_vlm
from truthkit.images.reading import read_image


def _photograph(orientation: int) -> Image.Image:
    """As Pillow opens a camera's file: lying, with its orientation beside the pixels."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    picture(60, 36).save(file, "PNG", exif=exif.tobytes())
    return Image.open(file)


def _transparent() -> Image.Image:
    pixels = np.dstack([np.asarray(picture(60, 36)), np.tile(np.arange(60, dtype=np.uint8) * 4, (36, 1))])
    return Image.fromarray(pixels, "RGBA")


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_the_identity_view_is_the_main_one(family: str) -> None:
    """RITUAL without a transform: (1 + alpha) times the model's own logits."""
    vlm = tiny_vlm(family)
    pictures = {"orientation 6": _photograph(6), "orientation 3": _photograph(3), "RGBA": _transparent()}
    pictures |= {"grey": picture(60, 36).convert("L"), "palette": picture(60, 36).convert("P")}
    wrong = []
    for name, given in pictures.items():
        for way in ("opened", "read by truthkit"):
            shown = given if way == "opened" else read_image(given)
            if way == "opened" and given.mode in ("RGBA", "L", "P"):
                shown = given.convert("RGB")  # as its image processor does, where it converts
            inputs = vlm.inputs(["a {} b c"], [[shown]])
            with torch.no_grad():
                right = 4 * vlm.model(**inputs).logits
            with tk.RITUAL(vlm.model, vlm.processor, images=given, transform=lambda i: i, alpha=3.0, beta=0.0):
                found = vlm.model(**inputs).logits
            if not torch.allclose(found, right, atol=1e-3):
                wrong.append((name, way))
    assert not wrong


def test_other_pictures_are_refused() -> None:
    vlm: Any = tiny_vlm("llava")
    inputs = vlm.inputs(["a {} b c"], [[picture(60, 36, seed=1)]])
    with (
        tk.RITUAL(vlm.model, vlm.processor, images=picture(60, 36, seed=2)),
        pytest.raises(tk.ArgumentError, match="do not give the pixel_values of the prompt"),
    ):
        vlm.model.generate(**inputs, max_new_tokens=2)
