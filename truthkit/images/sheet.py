"""One picture of an image and its six transforms."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from truthkit.errors import ArgumentError
from truthkit.images.operations import Size
from truthkit.images.reading import rgb
from truthkit.images.transforms import TRANSFORMS, transformed

CELL_AREA = 300 * 225
"""Pixels of a transform's picture; its shape is the image's own, between 1:2 and 2:1."""

_MARGIN, _GAP, _LABEL = 32, 24, 34
_PAPER, _MOUNT, _INK, _QUIET, _ACCENT = "#ffffff", "#f1f2f4", "#1c1f24", "#7a808a", "#c2410c"
_ROWS, _COLUMNS = 2, 3
_TINY = 64  # pixels: below, enlarging shows the pixels themselves


def transform_sheet(
    image: Image.Image, *, seed: int = 0, size: Size | None = None, chosen: str | None = None
) -> Image.Image:
    """The image on the left, large, and the six transforms beside it, each with its name below.

    Args:
        image: converted as in `read_image` unless it is RGB.
        seed: each cell is `transformed(image, name, seed=seed, size=size)`.
        size: (width, height) of what `crop` returns; None keeps the image's own.
        chosen: name of the transform to frame, as the one that `transform="random"` draws.

    Returns:
        RGB, about 1,700 x 600 pixels for a 4:3 image; no side exceeds 2,100.

    Raises:
        ArgumentError: `chosen` is none of the six, or the image cannot be read.
    """
    if chosen is not None and chosen not in TRANSFORMS:
        raise ArgumentError(f"chosen is {chosen!r}; expected one of {', '.join(TRANSFORMS)}.")
    image = rgb(image)
    width, height = _cell(image.size)
    tall = _ROWS * height + _LABEL + _GAP
    left = round(tall * width / height)
    sheet = Image.new("RGB", (2 * _MARGIN + left + _COLUMNS * (_GAP + width), 2 * _MARGIN + tall + _LABEL), _PAPER)
    _mount(sheet, image, (_MARGIN, _MARGIN), (left, tall))
    _label(sheet, (_MARGIN, _MARGIN + tall), left, "original", f"{image.width} x {image.height}")
    for place, name in enumerate(TRANSFORMS):
        row, column = divmod(place, _COLUMNS)
        corner = (_MARGIN + left + _GAP + column * (width + _GAP), _MARGIN + row * (height + _LABEL + _GAP))
        _mount(sheet, transformed(image, name, seed=seed, size=size)[0], corner, (width, height))
        drawn = name == chosen
        if drawn:
            _frame(sheet, corner, (width, height))
        _label(sheet, (corner[0], corner[1] + height), width, name, "drawn" if drawn else "", accent=drawn)
    return sheet


def _cell(size: Size) -> Size:
    """A cell of `CELL_AREA` in the shape of the image."""
    ratio = min(max(size[0] / size[1], 1 / 2), 2)
    return round((CELL_AREA * ratio) ** 0.5), round((CELL_AREA / ratio) ** 0.5)


def _fit(size: Size, room: Size) -> Size:
    """The largest size of the same shape inside `room`, at least one pixel a side."""
    scale = min(room[0] / size[0], room[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _mount(sheet: Image.Image, picture: Image.Image, corner: Size, room: Size) -> None:
    """`picture` centred in the cell of size `room` at `corner`."""
    size = _fit(picture.size, room)
    enlarged = size[0] > picture.width and max(picture.size) <= _TINY
    picture = picture.resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS, reducing_gap=3)
    ImageDraw.Draw(sheet).rectangle((*corner, corner[0] + room[0] - 1, corner[1] + room[1] - 1), fill=_MOUNT)
    sheet.paste(picture, (corner[0] + (room[0] - size[0]) // 2, corner[1] + (room[1] - size[1]) // 2))


def _frame(sheet: Image.Image, corner: Size, room: Size) -> None:
    box = (corner[0] - 7, corner[1] - 7, corner[0] + room[0] + 6, corner[1] + room[1] + 6)
    ImageDraw.Draw(sheet).rectangle(box, outline=_ACCENT, width=4)


def _label(sheet: Image.Image, corner: Size, width: int, text: str, note: str, *, accent: bool = False) -> None:
    """`text` at the left and `note` at the right, below a cell whose lower left corner is `corner`."""
    draw, line = ImageDraw.Draw(sheet), corner[1] + 27
    draw.text((corner[0], line), text, fill=_ACCENT if accent else _INK, font=ImageFont.load_default(20), anchor="ls")
    if note:
        draw.text(
            (corner[0] + width, line),
            note,
            fill=_ACCENT if accent else _QUIET,
            font=ImageFont.load_default(17),
            anchor="rs",
        )
