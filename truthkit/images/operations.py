"""The six image operations of RITUAL with their parameters given, as torchvision applies them to a Pillow image.

Each takes an RGB image and returns a new one. Parameters are drawn in `transforms.py`.
"""

from __future__ import annotations

import math
import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

Size = tuple[int, int]
"""(width, height) in pixels, as in Pillow."""

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels, the last two excluded, as in Pillow."""

KERNEL = 13
"""Taps of the blur."""

_ROWS_AT_ONCE = 128  # bounds the blur's float32 copies on large images


def rotate(image: Image.Image, angle: float) -> Image.Image:
    """Turned by `angle` degrees counter-clockwise about the centre: nearest pixel, same size, black corners."""
    return image.rotate(angle, Image.Resampling.NEAREST, expand=False, fillcolor=(0, 0, 0))


def adjust_brightness(image: Image.Image, factor: float) -> Image.Image:
    """`factor·pixel`, cut to 0-255."""
    return ImageEnhance.Brightness(image).enhance(factor)


def adjust_contrast(image: Image.Image, factor: float) -> Image.Image:
    """`mean + factor·(pixel − mean)`, cut to 0-255, with the rounded mean of the grey image."""
    return ImageEnhance.Contrast(image).enhance(factor)


def adjust_saturation(image: Image.Image, factor: float) -> Image.Image:
    """`grey + factor·(pixel − grey)`, cut to 0-255, with each pixel's own grey."""
    return ImageEnhance.Color(image).enhance(factor)


def adjust_hue(image: Image.Image, shift: float) -> Image.Image:
    """Hue turned by `shift` of the full circle, -0.5 to 0.5, in 8-bit HSV: by `int(255·shift)` of 256 steps."""
    hue, saturation, value = image.convert("HSV").split()
    turned = hue.point([(level + int(255 * shift)) % 256 for level in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def blur(image: Image.Image, sigma: float) -> Image.Image:
    """Convolved with a normalised Gaussian of 13 × 13 taps and standard deviation `sigma` pixels, edges reflected.

    torchvision refuses images of fewer than 7 pixels on a side; here the reflection goes back and forth.
    """
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    taps = np.exp(-0.5 * ((np.arange(KERNEL) - KERNEL // 2) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    rows, columns = _reflected(height), _reflected(width)
    blurred = np.empty_like(pixels)
    for top in range(0, height, _ROWS_AT_ONCE):
        bottom = min(top + _ROWS_AT_ONCE, height)
        band = pixels[rows[top : bottom + KERNEL - 1]].astype(np.float32)
        band = _convolved(band, taps, axis=0)
        band = _convolved(band[:, columns], taps, axis=1)
        blurred[top:bottom] = np.clip(np.rint(band), 0, 255)
    return Image.fromarray(blurred)


def draw_box(size: Size, rng: random.Random) -> Box:
    """The box of torchvision's `RandomResizedCrop`: 8 to 100 % of the area, sides 3:4 to 4:3.

    Ten draws of the area (uniform) and of width / height (log-uniform); if no box fits, the largest centred one that
    has an allowed ratio.
    """
    width, height = size
    low, high = 3 / 4, 4 / 3
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1)
        ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, top = below(width - across + 1, rng), below(height - down + 1, rng)
            return left, top, left + across, top + down
    across, down = width, height
    if width / height < low:
        down = round(width / low)
    elif width / height > high:
        across = round(height * high)
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def resized_crop(image: Image.Image, box: Box, size: Size) -> Image.Image:
    """What is in `box`, resized to `size`: bilinear, antialiased."""
    return image.crop(box).resize(size, Image.Resampling.BILINEAR)


def below(count: int, rng: random.Random) -> int:
    """A uniform whole number from 0 to `count - 1`, by `rng.random()`, the one draw that no Python version changes."""
    return int(rng.random() * count)


def _reflected(length: int) -> NDArray[np.intp]:
    """Indices of an axis with half a kernel reflected on both sides."""
    return np.pad(np.arange(length), KERNEL // 2, mode="reflect")


def _convolved(band: NDArray[np.float32], taps: NDArray[np.float32], *, axis: int) -> NDArray[np.float32]:
    """Weighted sum of the 13 shifts of `band` along `axis`, which gets 12 shorter."""
    length = band.shape[axis] - KERNEL + 1
    shifts = [band[start : start + length] if axis == 0 else band[:, start : start + length] for start in range(KERNEL)]
    total = taps[0] * shifts[0]
    for tap, shifted in zip(taps[1:], shifts[1:], strict=True):
        total += tap * shifted
    return total
