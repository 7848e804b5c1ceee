"""Drawing transforms: what is drawn, with which parameters, and that an item's content alone settles it."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.each import each
from tests.images.test_operations import picture
from truthkit.errors import ArgumentError
from truthkit.images import operations
from truthkit.images.transforms import TRANSFORMS, choose, content_seed, transformed

NAMES = ["horizontal_flip", "vertical_flip", "rotation", "color_jitter", "gaussian_blur", "crop"]


class Script(random.Random):
    """Gives the numbers it was told to; `uniform` scales them."""

    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self.numbers = list(numbers)

    def random(self) -> float:
        return self.numbers.pop(0)


def test_the_six() -> None:
    assert list(TRANSFORMS) == NAMES


def test_flips() -> None:
    image = picture(7, 5)
    pixels = np.asarray(image)
    assert np.array_equal(transformed(image, "horizontal_flip", seed=0)[0], pixels[:, ::-1])
    assert np.array_equal(transformed(image, "vertical_flip", seed=0)[0], pixels[::-1])


def test_parameters_are_uniform_in_the_published_ranges() -> None:
    image = picture(8, 6)
    assert TRANSFORMS["rotation"](image, Script(0.75)) == operations.rotate(image, 90)
    assert TRANSFORMS["gaussian_blur"](image, Script(0.5)) == operations.blur(image, 1.75)


def test_jitter_adjusts_in_random_order() -> None:
    image = picture(8, 6)
    found = TRANSFORMS["color_jitter"](image, Script(0.4, 0.7, 0.9, 0.2, 0.6, 0.1, 0.8, 0.3))
    expected = operations.adjust_contrast(image, 1.4)
    expected = operations.adjust_hue(expected, -0.3)
    expected = operations.adjust_brightness(expected, 0.8)
    assert found == operations.adjust_saturation(expected, 1.8)


def test_every_order_of_jitter_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    orders: set[tuple[str, ...]] = set()
    seen: list[str] = []

    def record(name: str, image: Image.Image, _: float) -> Image.Image:
        seen.append(name)
        return image

    for name in ("brightness", "contrast", "saturation", "hue"):
        monkeypatch.setattr(operations, f"adjust_{name}", partial(record, name))
    for seed in range(400):
        seen.clear()
        transformed(picture(2, 2), "color_jitter", seed=seed)
        orders.add(tuple(seen))
    assert len(orders) == 24


def test_crop_resizes_to_the_processor_or_to_the_image() -> None:
    image = picture(40, 30)
    assert transformed(image, "crop", seed=3)[0].size == (40, 30)
    found = transformed(image, "crop", seed=3, size=(24, 24))[0]
    rng = random.Random(3)
    rng.random()
    assert found == operations.resized_crop(image, operations.draw_box((40, 30), rng), (24, 24))


@each("name", NAMES)
def test_the_image_stays_and_the_size_is_kept(name: str) -> None:
    for shape in ((1, 1), (1, 50), (50, 1), (37, 20)):
        image = picture(*shape)
        before = image.tobytes()
        found, applied = transformed(image, name, seed=4)
        assert (applied, found.mode, found.size) == (name, "RGB", shape)
        assert image.tobytes() == before
        assert found is not image


@each("name", NAMES)
def test_a_seed_settles_everything(name: str) -> None:
    image = picture(40, 30)
    random.seed(1)
    first = transformed(image, name, seed=11)[0]
    random.seed(2)
    assert transformed(image, name, seed=11)[0] == first
    if "flip" not in name:
        assert transformed(image, name, seed=12)[0] != first


def test_a_drawn_transform_is_the_named_one() -> None:
    image = picture(40, 30)
    for seed in range(12):
        found, name = transformed(image, "random", seed=seed)
        assert name == NAMES[int(6 * random.Random(seed).random())]
        assert found == transformed(image, name, seed=seed)[0]
        assert transformed(image, [name], seed=seed) == (found, name)


def test_draws_over_questions_are_uniform() -> None:
    image = picture(4, 4)
    for transform, names in (("random", NAMES), (["crop", "rotation"], ["crop", "rotation"])):
        drawn = [choose(transform, random.Random(content_seed(image, f"question {n}")))[0] for n in range(3000)]
        counts = np.array([drawn.count(name) for name in names])
        assert counts.sum() == 3000
        expected = 3000 / len(names)
        assert ((counts - expected) ** 2 / expected).sum() < {6: 20.5, 2: 10.8}[len(names)]  # chi-squared, p = 0.001


def test_content_seed_is_a_hash_of_the_content() -> None:
    image = picture(5, 3)
    content = b"truthkit 7 5x3 " + np.asarray(image).tobytes() + "Is there a café?".encode()
    expected = int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1
    assert content_seed(image, "Is there a café?", seed=7) == expected
    assert 0 <= expected < 2**63
    others = [
        content_seed(image, "Is there a cafe?", seed=7),
        content_seed(image, "Is there a café?"),
        content_seed(image.resize((3, 5)), "Is there a café?", seed=7),
        content_seed(Image.frombytes("RGB", (3, 5), image.tobytes()), "Is there a café?", seed=7),
        content_seed(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "Is there a café?", seed=7),
    ]
    assert len({expected, *others}) == 6
    assert content_seed(image, "\ud800") != content_seed(image, "")


def test_content_seed_is_the_same_in_another_process_and_order() -> None:
    items = [(n, f"question {n}") for n in range(3)]
    code = """
from tests.images.test_transforms import content_seed, picture, transformed
import hashlib
for n in (2, 0, 1):
    image = picture(20, 10, seed=n)
    seed = content_seed(image, f"question {n}")
    found, name = transformed(image, seed=seed)
    print(n, seed, name, hashlib.sha256(found.tobytes()).hexdigest())
"""
    environment = os.environ | {"PYTHONHASHSEED": "5"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    expected = []
    for n, text in items:
        image = picture(20, 10, seed=n)
        seed = content_seed(image, text)
        found, name = transformed(image, seed=seed)
        expected.append(f"{n} {seed} {name} {hashlib.sha256(found.tobytes()).hexdigest()}")
    assert sorted(out.stdout.splitlines()) == expected


def test_a_function_of_your_own() -> None:
    def negative(image: Image.Image) -> Image.Image:
        return image.point(lambda level: 255 - level)

    class Marked:
        def __call__(self, image: Image.Image) -> Image.Image:
            image.putpixel((0, 0), (1, 2, 3))
            return image

    image = picture(6, 4)
    found, name = transformed(image, negative, seed=0)
    assert name == "negative"
    assert np.array_equal(found, 255 - np.asarray(image))
    before = image.copy()
    found_marked, name = transformed(image, Marked(), seed=0)
    assert (name, found_marked.getpixel((0, 0))) == ("Marked", (1, 2, 3))
    assert image == before
    assert transformed(image.convert("RGBA"), negative, seed=0)[0] == found


@each(
    ("function", "message"),
    [
        (lambda image: image.convert("L"), "an image of mode 'L'; expected an RGB Pillow image of 6 x 4 pixels"),
        (lambda image: image.resize((8, 4)), "an image of 8 x 4 pixels; expected an RGB Pillow image of 6 x 4 pixels"),
        (lambda image: image.crop((0, 0, 0, 0)), "an image of 0 x 0 pixels"),
        (lambda image: np.asarray(image), "returned a ndarray; expected an RGB Pillow image"),
        (lambda image: None, "'<lambda>' returned a NoneType"),
    ],
)
def test_what_a_function_returns_is_checked(function: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message.replace("(", r"\(")):
        transformed(picture(6, 4), function, seed=0)


@each(
    ("transform", "message"),
    [
        ("horizontal-flip", "no transform 'horizontal-flip' .did you mean 'horizontal_flip'"),
        ("colour_jitter", "did you mean 'color_jitter'"),
        ("zoom", "no transform 'zoom'; expected \"random\", one or a list of horizontal_flip, vertical_flip, rotation"),
        (["crop", "Rotation"], "no transform 'Rotation' .did you mean 'rotation'"),
        (["crop", ["rotation"]], "no transform .'rotation'."),
        (["random"], "no transform 'random'"),
        ([], r"transform is \[\]"),
        (None, "transform is None"),
        (3, "transform is 3"),
    ],
)
def test_bad_choices(transform: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        transformed(picture(6, 4), transform, seed=0)
