"""A part of an image, written behind its path as in an address: `zebra.jpg#xywh=10,20,64,48`.

That is the spatial dimension of the W3C's Media Fragments URI 1.0 (4.2.2), in pixels; a part may reach over the edge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, as Pillow has them."""

_FRAGMENT = re.compile(r"#xywh=(-?\d+),(-?\d+),(\d+),(\d+)\Z")


def region(path: str, x: float, y: float, width: float, height: float) -> str:
    """The name of a part of the image at `path`; edges are rounded to pixels as `PIL.Image.crop` rounds them."""
    left, top, right, bottom = map(round, (x, y, x + width, y + height))
    return f"{path}#xywh={left},{top},{right - left},{bottom - top}"


def split_region(name: str) -> tuple[str, Box | None]:
    """The path of an image and the box of the part that is meant; None for all of it."""
    if (found := _FRAGMENT.search(name)) is None:
        return name, None
    x, y, width, height = map(int, found.groups())
    return name[: found.start()], (x, y, x + width, y + height)


def overlaps(box: Box, size: Sequence[int]) -> bool:
    """Whether a box holds at least one pixel of an image of that width and height."""
    left, top, right, bottom = box
    return max(left, 0) < min(right, size[0]) and max(top, 0) < min(bottom, size[1])
