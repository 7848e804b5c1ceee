"""How each object looks: polygons and lines in a square from -1 to 1, y downwards, drawn in order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Part:
    """A filled polygon, or a line of some width.

    Attributes:
        points: Corners.
        detail: Drawn in the paler second colour.
        width: Of the line; None is a filled polygon.
    """

    points: tuple[Point, ...]
    detail: bool = False
    width: float | None = None


def _area(*points: Point, detail: bool = False) -> Part:
    return Part(points, detail)


def _line(*points: Point, width: float = 0.2, detail: bool = False) -> Part:
    return Part(points, detail, width)


def _box(left: float, top: float, right: float, bottom: float, *, detail: bool = False) -> Part:
    return Part(((left, top), (right, top), (right, bottom), (left, bottom)), detail)


def _arc(x: float, y: float, radius: float, start: float, end: float, *, flat: float = 1.0) -> tuple[Point, ...]:
    """Points of an arc, in degrees clockwise from the right; `flat` scales its height."""
    steps = max(4, round((end - start) / 24))
    angles = (math.radians(start + (end - start) * step / steps) for step in range(steps + 1))
    return tuple((x + radius * math.cos(angle), y + flat * radius * math.sin(angle)) for angle in angles)


def _disc(x: float, y: float, radius: float, *, flat: float = 1.0, detail: bool = False) -> Part:
    return Part(_arc(x, y, radius, 0, 360, flat=flat), detail)


SHAPES: dict[str, tuple[Part, ...]] = {
    "fork": (
        _line((0, -0.2), (0, 1)),
        _line((-0.4, -0.2), (0.4, -0.2)),
        *(_line((x, -1), (x, -0.2), width=0.17) for x in (-0.4, 0, 0.4)),
    ),
    "knife": (
        _area((-0.12, 0.2), (-0.12, -1), (0.15, -0.9), (0.32, -0.5), (0.32, 0.2)),
        _box(-0.12, 0.3, 0.16, 1),
    ),
    "cup": (
        _line(*_arc(0.5, 0, 0.36, -90, 90), width=0.2),
        _area((-0.75, -0.8), (0.6, -0.8), (0.4, 0.8), (-0.55, 0.8)),
        _disc(-0.08, -0.75, 0.6, flat=0.25, detail=True),
    ),
    "pizza": (
        _area((0, 1), (-0.85, -0.7), (0, -0.95), (0.85, -0.7)),
        *(_disc(x, y, 0.2, detail=True) for x, y in ((-0.3, -0.4), (0.3, -0.35), (0, 0.2))),
    ),
    "keyboard": (
        _box(-1, -0.5, 1, 0.5),
        *(_box(x, y, x + 0.26, y + 0.2, detail=True) for y in (-0.36, -0.04) for x in (-0.84, -0.4, 0.04, 0.5)),
        _box(-0.5, 0.26, 0.5, 0.4, detail=True),
    ),
    "mouse": (
        _line((0, -0.4), (0.1, -0.7), (-0.2, -0.8), (0, -1), width=0.13),
        Part(tuple((x * 0.75, y + 0.25) for x, y in _arc(0, 0, 0.75, 0, 360))),
        _line((0, -0.5), (0, 0.15), width=0.13, detail=True),
        _line((-0.5, 0.15), (0.5, 0.15), width=0.13, detail=True),
    ),
    "car": (
        _area((-0.6, -0.1), (-0.35, -0.6), (0.35, -0.6), (0.65, -0.1)),
        _box(-1, -0.1, 1, 0.4),
        _area((-0.4, -0.1), (-0.25, -0.45), (0.25, -0.45), (0.42, -0.1), detail=True),
        *(_disc(x, 0.4, 0.28) for x in (-0.55, 0.55)),
        *(_disc(x, 0.4, 0.13, detail=True) for x in (-0.55, 0.55)),
    ),
    "traffic light": (
        _box(-0.4, -1, 0.4, 0.7),
        _line((0, 0.7), (0, 1), width=0.2),
        *(_disc(0, y, 0.23, detail=True) for y in (-0.7, -0.15, 0.4)),
    ),
    "couch": (
        _box(-0.75, -0.6, 0.75, 0.2),
        _box(-1, -0.15, -0.65, 0.6),
        _box(0.65, -0.15, 1, 0.6),
        _box(-0.65, 0.12, 0.65, 0.5, detail=True),
        _box(-0.9, 0.5, 0.9, 0.65),
    ),
    "tv": (
        _box(-1, -0.55, 1, 0.65),
        _box(-0.8, -0.38, 0.8, 0.48, detail=True),
        _line((-0.4, -1), (0, -0.55), (0.4, -1), width=0.14),
        _line((-0.5, 0.85), (0.5, 0.85), width=0.2),
    ),
    "umbrella": (
        Part(_arc(0, 0, 1, 180, 360)),
        _line((0, 0), (0, 0.8), width=0.16),
        _line(*_arc(0.2, 0.75, 0.2, 0, 180), width=0.16),
        *(_line((0, -0.9), (x, 0), width=0.09, detail=True) for x in (-0.4, 0.4)),
    ),
    "handbag": (
        _line(*_arc(0, -0.2, 0.5, 180, 360, flat=1.5), width=0.16),
        _area((-0.7, -0.25), (0.7, -0.25), (0.95, 0.85), (-0.95, 0.85)),
        _line((-0.75, 0.1), (0.75, 0.1), width=0.1, detail=True),
        _disc(0, 0.2, 0.15, detail=True),
    ),
    "banana": (Part((*_arc(0, -0.6, 1.2, 10, 150), *reversed(_arc(-0.05, -0.85, 0.95, 15, 150)))),),
    "apple": (
        _disc(-0.28, 0.2, 0.6),
        _disc(0.28, 0.2, 0.6),
        _disc(0, 0.45, 0.5),
        _line((0, -0.3), (0.1, -0.9), width=0.14),
        _area((0.1, -0.65), (0.4, -1), (0.75, -0.9), (0.45, -0.6)),
    ),
    "tennis racket": (
        Part(_arc(0, -0.35, 0.62, 0, 360)),
        Part(_arc(0, -0.35, 0.46, 0, 360), detail=True),
        *(_line((x, -0.75), (x, 0.05), width=0.07) for x in (-0.2, 0.2)),
        *(_line((-0.4, y), (0.4, y), width=0.07) for y in (-0.55, -0.15)),
        _line((0, 0.2), (0, 1), width=0.22),
    ),
    "sports ball": (
        _disc(0, 0, 0.8),
        _line(*_arc(-0.95, 0, 0.7, -50, 50), width=0.13, detail=True),
        _line(*_arc(0.95, 0, 0.7, 130, 230), width=0.13, detail=True),
    ),
    "clock": (
        _disc(0, 0, 0.95),
        _disc(0, 0, 0.74, detail=True),
        _line((0, 0.1), (0, -0.6), width=0.15),
        _line((-0.08, 0), (0.45, 0), width=0.15),
    ),
    "book": (
        _area((0, -0.5), (-1, -0.75), (-1, 0.5), (0, 0.75)),
        _area((0, -0.5), (1, -0.75), (1, 0.5), (0, 0.75)),
        _line((0, -0.5), (0, 0.75), width=0.12, detail=True),
        *(
            _line((side * 0.2, y), (side * 0.8, y - 0.15), width=0.1, detail=True)
            for side in (-1, 1)
            for y in (-0.2, 0.2)
        ),
    ),
    "kite": (
        _area((0, -1), (0.6, -0.35), (0, 0.4), (-0.6, -0.35)),
        _line((0, -1), (0, 0.4), width=0.1, detail=True),
        _line((-0.6, -0.35), (0.6, -0.35), width=0.1, detail=True),
        _line((0, 0.4), (0.25, 0.55), (-0.2, 0.75), (0.2, 1), width=0.14),
    ),
    "boat": (
        _area((-1, 0.4), (1, 0.4), (0.6, 0.9), (-0.6, 0.9)),
        _line((0, -1), (0, 0.4), width=0.12),
        _area((0.12, -0.95), (0.8, 0.25), (0.12, 0.25)),
        _area((-0.12, -0.6), (-0.12, 0.25), (-0.6, 0.25)),
    ),
}
"""The parts of every object of `truthkit.scenes.scene.OBJECTS`."""
