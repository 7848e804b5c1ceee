"""RITUAL's random image transforms (arXiv 2405.17821), drawn from a seed, with Pillow and numpy alone.

The six are those of the authors' code, in which torchvision applies them to the image before the model's processor.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from PIL import Image

from truthkit.errors import ArgumentError, did_you_mean
from truthkit.images import operations
from truthkit.images.operations import Size
from truthkit.images.reading import rgb

ImageFunction = Callable[[Image.Image], Image.Image]
"""A transform of your own: one RGB image in, an RGB image of the same size out."""

TransformChoice = str | Sequence[str] | ImageFunction
""""random", a name, names to draw from, or a function."""


class Transform(Protocol):
    """A random transform of an RGB image.

    `size`, (width, height), is that of the processor's input; only `crop` uses it, and None keeps the image's own.
    """

    def __call__(self, image: Image.Image, rng: random.Random, *, size: Size | None = None) -> Image.Image:
        """A new RGB image; `image` stays as it is."""
        ...


def horizontal_flip(image: Image.Image, rng: random.Random, *, size: Size | None = None) -> Image.Image:
    """Left and right exchanged, always."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def vertical_flip(image: Image.Image, rng: random.Random, *, size: Size | None = None) -> Image.Image:
    """Top and bottom exchanged, always."""
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)


def rotation(image: Image.Image, rng: random.Random, *, size: Size | None = None) -> Image.Image:
    """`RandomRotation(180)`: an angle uniform in [-180°, 180°]; nearest pixel, same size, black corners."""
    return operations.rotate(image, rng.uniform(-180, 180))


def color_jitter(image: Image.Image, rng: random.Random, *, size: Size | None = None) -> Image.Image:
    """`ColorJitter(1, 1, 1, 0.5)`: brightness, contrast and saturation factors uniform in [0, 2] and a hue shift
    uniform in [-0.5, 0.5] of the circle, in random order.
    """
    steps = [
        (operations.adjust_brightness, rng.uniform(0, 2)),
        (operations.adjust_contrast, rng.uniform(0, 2)),
        (operations.adjust_saturation, rng.uniform(0, 2)),
        (operations.adjust_hue, rng.uniform(-0.5, 0.5)),
    ]
    for adjust, value in sorted(steps, key=lambda _: rng.random()):
        image = adjust(image, value)
    return image


def gaussian_blur(image: Image.Image, rng: random.Random, *, size: Size | None = None) -> Image.Image:
    """`GaussianBlur(13, (1.5, 2.0))`: 13 × 13 taps, standard deviation uniform in [1.5, 2] pixels, edges reflected."""
    return operations.blur(image, rng.uniform(1.5, 2))


def crop(image: Image.Image, rng: random.Random, *, size: Size | None = None) -> Image.Image:
    """`RandomResizedCrop(size)`: 8 to 100 % of the area, sides 3:4 to 4:3, resized to `size` bilinearly."""
    return operations.resized_crop(image, operations.draw_box(image.size, rng), size or image.size)


TRANSFORMS: dict[str, Transform] = {
    "horizontal_flip": horizontal_flip,
    "vertical_flip": vertical_flip,
    "rotation": rotation,
    "color_jitter": color_jitter,
    "gaussian_blur": gaussian_blur,
    "crop": crop,
}
"""The six, in the order of the authors' code."""


def choose(transform: TransformChoice, rng: random.Random) -> tuple[str, Transform]:
    """A transform's name and the transform itself, ready for `(image, rng, size=...)`.

    One number is taken from `rng` whatever `transform` is, so a seed gives the same rotation whether it was asked for
    by name or drawn.

    Args:
        transform: `"random"`, uniformly one of the six; a name; a list of names, uniformly one of its entries; or a
            function of one RGB image, whose name is its `__name__` and whose own randomness is its own affair.
        rng: takes part only through `rng.random()` and `rng.uniform()`.

    Raises:
        ArgumentError: an unknown name, an empty list, or something else.
    """
    place = rng.random()
    if callable(transform):
        return _name_of(transform), _checked(transform)
    names = list(TRANSFORMS) if transform == "random" else [transform] if isinstance(transform, str) else transform
    if not isinstance(names, Sequence) or not names:
        raise ArgumentError(f"transform is {transform!r}; {_EXPECTED}")
    for name in names:
        if not isinstance(name, str) or name not in TRANSFORMS:
            raise ArgumentError(f"there is no transform {name!r}{did_you_mean(str(name), TRANSFORMS)}; {_EXPECTED}")
    name = names[int(place * len(names))]
    return name, TRANSFORMS[name]


def transformed(
    image: Image.Image, transform: TransformChoice = "random", *, seed: int, size: Size | None = None
) -> tuple[Image.Image, str]:
    """The transformed image, RGB, and the name of the transform that was applied.

    Args:
        image: converted as in `read_image` unless it is RGB; stays as it is.
        transform: as in `choose`.
        seed: settles the choice and all its parameters; `content_seed` makes one of the item itself.
        size: (width, height) of what `crop` returns, usually `processor_size(...)`; None keeps the image's own.

    Raises:
        ArgumentError: as in `choose`; or a function of yours returned something else than an RGB image of the same
            size.
    """
    rng = random.Random(seed)
    name, apply = choose(transform, rng)
    return apply(rgb(image), rng, size=size), name


def content_seed(image: Image.Image, text: str, seed: int = 0) -> int:
    """A seed of 63 bits that depends on the item alone, not on its place among others, the process or the platform.

    The first 8 bytes of a SHA-256 over `seed`, the image's size and RGB pixels, and `text` in UTF-8.
    """
    image = rgb(image)
    digest = hashlib.sha256(f"truthkit {seed} {image.width}x{image.height} ".encode())
    digest.update(image.tobytes())
    digest.update(text.encode("utf-8", "surrogatepass"))
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def processor_size(processor: Any) -> Size | None:
    """(width, height) that an image processor gives every image; None where that depends on the image.

    Args:
        processor: an image processor of transformers, or a processor that has one as `image_processor`.
    """
    processor = getattr(processor, "image_processor", processor)
    cropped = getattr(processor, "do_center_crop", False) and getattr(processor, "crop_size", None)
    target = cropped or getattr(processor, "size", None) or {}
    width, height = (_side(target, side) for side in ("width", "height"))
    return (width, height) if width and height else None


def _side(target: Any, side: str) -> int | None:
    value = target.get(side) if isinstance(target, dict) else getattr(target, side, None)
    return None if value is None else int(value)


_EXPECTED = f'expected "random", one or a list of {", ".join(TRANSFORMS)}, or a function of one RGB image.'


def _name_of(function: ImageFunction) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _checked(function: ImageFunction) -> Transform:
    """`function` as a Transform whose result is looked at."""

    def apply(image: Image.Image, rng: random.Random, *, size: Size | None = None) -> Image.Image:
        result: object = function(image.copy())
        found = f"the transform {_name_of(function)!r} returned"
        expected = f"expected an RGB Pillow image of {image.width} x {image.height} pixels"
        if not isinstance(result, Image.Image):
            raise ArgumentError(f"{found} a {type(result).__name__}; {expected}.")
        if result.mode != "RGB":
            raise ArgumentError(f'{found} an image of mode {result.mode!r}; {expected}: image.convert("RGB").')
        if result.size != image.size:
            raise ArgumentError(
                f"{found} an image of {result.width} x {result.height} pixels; {expected}: image.resize(...)."
            )
        return result

    return apply
