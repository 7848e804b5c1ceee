"""Pictures of scenes."""

from __future__ import annotations

import math
import random

from PIL import Image, ImageDraw

from truthkit.scenes.scene import Color, Placed, Scene
from truthkit.scenes.shapes import SHAPES

_FINER = 2
"""Drawn this much larger and averaged down, for smooth edges."""


def render(scene: Scene, size: int = 64) -> Image.Image:
    """The picture of `scene`, `size` pixels wide and high, in RGB. The same every time."""
    rng = random.Random(scene.seed)
    side = _FINER * size
    image = Image.new("RGB", (side, side), scene.background)
    draw = ImageDraw.Draw(image)
    _draw_background(draw, rng, scene.background, side)
    for _ in range(rng.randint(0, 6)):
        _draw_clutter(draw, rng, scene.background, side)
    for placed in scene.objects:
        _draw_object(draw, placed, scene.background, side)
    return image.reduce(_FINER)


def _draw_background(draw: ImageDraw.ImageDraw, rng: random.Random, color: Color, side: int) -> None:
    """Plain, two halves, bars or tiles in two neighbouring colours."""
    other = _mixed(color, (128, 128, 128), rng.uniform(0.1, 0.3))
    kind, step = rng.choice(("plain", "halves", "bars", "tiles")), side // rng.randint(3, 7)
    if kind == "halves":
        draw.rectangle((0, round(side * rng.uniform(0.3, 0.7)), side, side), fill=other)
    elif kind == "bars":
        for start in range(0, side, 2 * step):
            draw.rectangle((start, 0, start + step - 1, side), fill=other)
    elif kind == "tiles":
        for row, top in enumerate(range(0, side, step)):
            for left in range(step * (row % 2), side, 2 * step):
                draw.rectangle((left, top, left + step - 1, top + step - 1), fill=other)


def _draw_clutter(draw: ImageDraw.ImageDraw, rng: random.Random, background: Color, side: int) -> None:
    """A speck, stroke or scrap that is no object, in a muted colour."""
    color = _mixed((rng.randrange(256), rng.randrange(256), rng.randrange(256)), background, 0.4)
    x, y, reach = rng.uniform(0, side), rng.uniform(0, side), side * rng.uniform(0.02, 0.06)
    corners = [(x + rng.uniform(-reach, reach), y + rng.uniform(-reach, reach)) for _ in range(3)]
    kind = rng.choice(("speck", "stroke", "scrap"))
    if kind == "speck":
        draw.ellipse((x - reach / 2, y - reach / 2, x + reach / 2, y + reach / 2), fill=color)
    elif kind == "stroke":
        draw.line(corners, fill=color, width=max(1, side // 64))
    else:
        draw.polygon(corners, fill=color)


def _draw_object(draw: ImageDraw.ImageDraw, placed: Placed, background: Color, side: int) -> None:
    """The object's parts, scaled, turned and moved to their place."""
    surface = _mixed(background, placed.color, placed.strength)
    detail = _mixed(surface, background, 0.75)
    reach = placed.radius * side
    cos, sin = reach * math.cos(placed.angle), reach * math.sin(placed.angle)
    left, top = placed.x * side, placed.y * side
    for part in SHAPES[placed.name]:
        points = [(left + x * cos - y * sin, top + x * sin + y * cos) for x, y in part.points]
        color = detail if part.detail else surface
        if part.width is None:
            draw.polygon(points, fill=color)
        else:
            draw.line(points, fill=color, width=max(1, round(part.width * reach)), joint="curve")


def _mixed(one: Color, other: Color, share: float) -> Color:
    """`one` with a `share` of `other`."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(one, other, strict=True))
    return red, green, blue
