"""The sheet shows the image and what `transformed` makes of it, in every shape."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.images.test_operations import picture
from truthkit.errors import ArgumentError
from truthkit.images.sheet import CELL_AREA, transform_sheet
from truthkit.images.transforms import TRANSFORMS, transformed


def shows(sheet: Image.Image, picture: Image.Image) -> bool:
    """Whether `picture` is somewhere in the sheet, pixel by pixel."""
    pixels, sought = np.asarray(sheet), np.asarray(picture)
    height, width = sought.shape[:2]
    corners = np.argwhere((pixels[: -height + 1, : -width + 1] == sought[0, 0]).all(axis=2))
    return any(np.array_equal(pixels[y : y + height, x : x + width], sought) for y, x in corners)


def test_every_cell_shows_its_transform() -> None:
    image = picture(300, 225)
    assert image.width * image.height == CELL_AREA
    sheet = transform_sheet(image, seed=5)
    for name in TRANSFORMS:
        assert shows(sheet, transformed(image, name, seed=5)[0]), name
    assert not shows(sheet, transformed(image, "rotation", seed=6)[0])
    assert transform_sheet(image, seed=5) == sheet


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (8000, 3), (500, 100), (120, 640), (24, 18)])
def test_shapes(size: tuple[int, int]) -> None:
    sheet = transform_sheet(picture(*size), seed=1, size=(336, 336))
    assert sheet.mode == "RGB"
    assert 800 < sheet.width <= 2100
    assert 400 < sheet.height <= 1000


def test_the_chosen_one_is_framed() -> None:
    image = picture(300, 225)
    plain, marked = (np.asarray(transform_sheet(image, chosen=name)).astype(int) for name in (None, "horizontal_flip"))
    rows, columns = np.nonzero((plain != marked).any(axis=2))
    assert 0 < columns.max() - columns.min() < 330
    assert 0 < rows.max() - rows.min() < 290
    for name in TRANSFORMS:
        assert shows(Image.fromarray(marked.astype(np.uint8)), transformed(image, name, seed=0)[0])
    with pytest.raises(ArgumentError, match="chosen is 'flip'; expected one of horizontal_flip"):
        transform_sheet(image, chosen="flip")
