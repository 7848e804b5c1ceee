"""Each operation against its formula over arrays, in float64 and with loops where that is plainest."""

from __future__ import annotations

import colorsys
import math
import random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.each import each
from truthkit.images import operations


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with some noise."""
    rng = np.random.default_rng(seed)
    waves = np.linspace(0, 3, width)[None, :, None] + np.linspace(0, 2, height)[:, None, None] + rng.random(3)
    values = 128 + 90 * np.sin(2 * waves) + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def array(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image).astype(np.int64)


@each(("angle", "turns"), [(0, 0), (90, 1), (180, 2), (-90, 3), (-180, 2)])
def test_quarter_turns(angle: float, turns: int) -> None:
    image = picture(20, 20)
    assert np.array_equal(array(operations.rotate(image, angle)), np.rot90(array(image), turns))


@each("angle", [37.3, -112.9, 179.2])
def test_rotation_is_counter_clockwise_nearest_and_black_outside(angle: float) -> None:
    image = picture(41, 30)
    pixels, expected = array(image), np.zeros((30, 41, 3), dtype=np.int64)
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    for y in range(30):
        for x in range(41):
            across, down = x + 0.5 - 20.5, y + 0.5 - 15
            source_x = math.floor(cosine * across - sine * down + 20.5)
            source_y = math.floor(sine * across + cosine * down + 15)
            if 0 <= source_x < 41 and 0 <= source_y < 30:
                expected[y, x] = pixels[source_y, source_x]
    found = array(operations.rotate(image, angle))
    assert found.shape == expected.shape
    # Pillow computes in fixed point: a pixel whose source lies on a border may come from the other side.
    assert (found == expected).all(axis=2).mean() > 0.995


def blended(base: NDArray[np.int64], pixels: NDArray[np.int64], factor: float) -> NDArray[np.int64]:
    return np.clip(base + factor * (pixels - base), 0, 255).astype(np.int64)


def grey(pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """ITU-R 601 luma in Pillow's 16-bit fixed point."""
    return (pixels @ np.array([19595, 38470, 7471]) + 0x8000) >> 16


@each("factor", [0.0, 0.25, 1.0, 1.5, 2.0])
def test_brightness_contrast_and_saturation(factor: float) -> None:
    image = picture(33, 17)
    pixels = array(image)
    luma = grey(pixels)
    mean = np.full_like(pixels, int(luma.mean() + 0.5))
    own = np.repeat(luma[..., None], 3, axis=2)
    assert np.array_equal(
        array(operations.adjust_brightness(image, factor)), blended(np.zeros_like(pixels), pixels, factor)
    )
    assert np.array_equal(array(operations.adjust_contrast(image, factor)), blended(mean, pixels, factor))
    assert np.array_equal(array(operations.adjust_saturation(image, factor)), blended(own, pixels, factor))


def test_hand_computed_colours() -> None:
    pixel = Image.new("RGB", (1, 1), (200, 100, 40))
    assert operations.adjust_brightness(pixel, 0.5).getpixel((0, 0)) == (100, 50, 20)
    assert operations.adjust_brightness(pixel, 2).getpixel((0, 0)) == (255, 200, 80)
    # 0.299 * 200 + 0.587 * 100 + 0.114 * 40 = 123.06
    assert operations.adjust_saturation(pixel, 0).getpixel((0, 0)) == (123, 123, 123)
    assert operations.adjust_saturation(pixel, 2).getpixel((0, 0)) == (255, 77, 0)
    assert operations.adjust_contrast(pixel, 0.5).getpixel((0, 0)) == (161, 111, 81)


@each(
    ("shift", "colour"),
    # A third of 255 steps forwards is exactly green; as far backwards, in a circle of 256, is a little past blue.
    [(0, (255, 0, 0)), (1 / 3, (0, 255, 0)), (-1 / 3, (6, 0, 255)), (0.5, (0, 255, 252))],
)
def test_hue_of_red(shift: float, colour: tuple[int, int, int]) -> None:
    assert operations.adjust_hue(Image.new("RGB", (1, 1), (255, 0, 0)), shift).getpixel((0, 0)) == colour
    assert operations.adjust_hue(Image.new("RGB", (1, 1), (90, 90, 90)), shift).getpixel((0, 0)) == (90, 90, 90)


@each("shift", [-0.5, -0.31, -0.001, 0.123, 0.5])
def test_hue_in_general(shift: float) -> None:
    image = picture(12, 9)
    found = array(operations.adjust_hue(image, shift)).reshape(-1, 3)
    for pixel, turned in zip(array(image).reshape(-1, 3), found, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        hue = (int(hue * 255) + int(shift * 255)) % 256 / 255
        expected = 255 * np.array(colorsys.hsv_to_rgb(hue, int(saturation * 255) / 255, value))
        assert np.abs(turned - expected).max() <= 2


def mirrored(place: int, length: int) -> int:
    """The index that a reflected axis shows at `place`, for any distance."""
    if length == 1:
        return 0
    place = abs(place) % (2 * length - 2)
    return min(place, 2 * length - 2 - place)


@each(("width", "height"), [(21, 16), (13, 7), (6, 5), (3, 1), (1, 1), (2, 140)])
def test_blur_is_a_two_dimensional_convolution(width: int, height: int) -> None:
    sigma, image = 1.7, picture(width, height)
    pixels = array(image)
    kernel = np.array([[math.exp(-(x * x + y * y) / (2 * sigma**2)) for x in range(-6, 7)] for y in range(-6, 7)])
    kernel /= kernel.sum()
    expected = np.zeros(pixels.shape)
    for y in range(height):
        rows = [mirrored(y + offset, height) for offset in range(-6, 7)]
        for x in range(width):
            columns = [mirrored(x + offset, width) for offset in range(-6, 7)]
            expected[y, x] = (kernel[..., None] * pixels[np.ix_(rows, columns)]).sum(axis=(0, 1))
    assert np.abs(array(operations.blur(image, sigma)) - expected).max() <= 0.5001


def test_blur_has_the_arithmetic_of_torchvision() -> None:
    """Its kernel, reflection, float32 `conv2d` and rounding, in torch."""
    image, sigma = picture(300, 280), 1.6321
    taps = torch.exp(-0.5 * (torch.linspace(-6, 6, 13) / sigma) ** 2)
    taps /= taps.sum()
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[:, None].float()
    padded = torch.nn.functional.pad(pixels, [6] * 4, mode="reflect")
    expected = torch.conv2d(padded, torch.outer(taps, taps)[None, None]).round()[:, 0].permute(1, 2, 0).numpy()
    difference = np.abs(array(operations.blur(image, sigma)) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-4


def triangle_resized(pixels: NDArray[np.int64], length: int) -> NDArray[np.float64]:
    """The first axis resampled to `length` with a triangle as wide as the scale asks for."""
    scale = pixels.shape[0] / length
    width = max(scale, 1.0)
    rows = []
    for place in range(length):
        distance = (np.arange(pixels.shape[0]) + 0.5 - (place + 0.5) * scale) / width
        weights = np.maximum(0, 1 - np.abs(distance))
        rows.append(np.tensordot(weights / weights.sum(), pixels, axes=1))
    return np.array(rows)


@each("size", [(30, 24), (9, 31), (1, 1)])
def test_resized_crop(size: operations.Size) -> None:
    image = picture(40, 30)
    inside = array(image)[3:23, 5:32]
    expected = triangle_resized(triangle_resized(inside, size[1]).swapaxes(0, 1), size[0]).swapaxes(0, 1)
    found = operations.resized_crop(image, (5, 3, 32, 23), size)
    assert found.size == size
    assert np.abs(array(found) - expected).max() <= 1.01


def test_boxes_stay_in_bounds_and_have_the_published_distribution() -> None:
    """Against rejection sampling from the definition, with numpy's generator."""
    width, height = 640, 480
    oracle = np.random.default_rng(0)
    area, ratio = oracle.uniform(0.08, 1, 40000), np.exp(oracle.uniform(math.log(3 / 4), math.log(4 / 3), 40000))
    fits = (width * height * area * ratio <= width**2) & (width * height * area / ratio <= height**2)
    expected_area, expected_ratio = area[fits], np.log(ratio[fits])

    rng = random.Random(1)
    boxes = np.array([operations.draw_box((width, height), rng) for _ in range(4000)])
    left, top, right, bottom = boxes.T
    across, down = right - left, bottom - top
    assert left.min() >= 0
    assert top.min() >= 0
    assert right.max() <= width
    assert bottom.max() <= height
    found_area, found_ratio = across * down / (width * height), np.log(across / down)
    assert found_area.min() >= 0.0795
    assert np.exp(found_ratio).min() >= 0.745
    assert np.exp(found_ratio).max() <= 1.345
    for found, expected in ((found_area, expected_area), (found_ratio, expected_ratio)):
        grid = np.linspace(expected.min(), expected.max(), 50)
        steps = [np.searchsorted(np.sort(values), grid) / len(values) for values in (found, expected)]
        assert np.abs(steps[0] - steps[1]).max() < 1.95 * math.sqrt(1 / 4000 + 1 / len(expected))  # p = 0.001
    room = width - across > 100
    assert np.mean(left[room] / (width - across[room])) == pytest.approx(0.5, abs=0.02)


@each(
    ("size", "box"),
    [
        ((1000, 10), (493, 0, 506, 10)),
        ((10, 1000), (0, 493, 10, 506)),
        ((1, 5000), (0, 2499, 1, 2500)),
    ],
)
def test_a_centred_box_where_none_fits(size: operations.Size, box: operations.Box) -> None:
    assert all(operations.draw_box(size, random.Random(seed)) == box for seed in range(20))


def test_a_box_in_a_single_pixel() -> None:
    assert {operations.draw_box((1, 1), random.Random(seed)) for seed in range(50)} == {(0, 0, 1, 1)}
