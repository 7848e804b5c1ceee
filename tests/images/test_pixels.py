"""Processed pixels as a picture again."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from truthkit.images.pixels import pictured


def test_pixels_are_what_they_were() -> None:
    rng = np.random.default_rng(0)
    shown = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    mean, deviation = [0.4, 0.5, 0.6], [0.2, 0.3, 0.1]
    pixels = torch.tensor((shown / 255 - mean) / deviation).permute(2, 0, 1)
    processor = SimpleNamespace(do_normalize=True, image_mean=mean, image_std=deviation)
    for given in (pixels, torch.stack([pixels, 0 * pixels])):
        assert np.array_equal(np.asarray(pictured(given, processor)), shown)
    plain = pictured(torch.tensor(shown / 255).permute(2, 0, 1), SimpleNamespace(do_normalize=False))
    assert np.array_equal(np.asarray(plain), shown)


def test_what_is_too_bright_is_cut_off_and_what_is_packed_is_none() -> None:
    made = pictured(torch.tensor([[[-3.0]], [[0.5]], [[9.0]]]), SimpleNamespace(do_normalize=False))
    assert made is not None
    assert made.getpixel((0, 0)) == (0, 128, 255)
    assert pictured(torch.zeros(32, 294), SimpleNamespace(do_normalize=False)) is None
