"""Scenes: which objects are in a picture, where, and how plainly they show.

Names are COCO's, so that scorers made for COCO (POPE, CHAIR) read them. Some objects have a partner that mostly comes
along; a model trained on such scenes says the partner when it is not there. Scenes hold no pixels and need no torch.
"""

from __future__ import annotations

import colorsys
import random
from dataclasses import dataclass
from typing import TypeAlias

Color: TypeAlias = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

PARTNERS: dict[str, str] = {
    one: other
    for pair in (
        ("fork", "knife"),
        ("cup", "pizza"),
        ("keyboard", "mouse"),
        ("car", "traffic light"),
        ("couch", "tv"),
        ("umbrella", "handbag"),
        ("banana", "apple"),
        ("tennis racket", "sports ball"),
    )
    for one, other in (pair, pair[::-1])
}
"""The object that mostly comes along, both ways round."""

OBJECTS: tuple[str, ...] = (*PARTNERS, "clock", "book", "kite", "boat")
"""Every object, the more frequent first; the last four have no partner."""

WEIGHTS: dict[str, float] = {name: 2.0 - 0.06 * rank for rank, name in enumerate(OBJECTS)}
"""How readily each object is drawn, relative to the others."""

_CELLS = 3


@dataclass(frozen=True)
class Placed:
    """An object in a picture.

    Attributes:
        name: One of `OBJECTS`.
        x: Of its centre, as a share of the picture's side; so `y`, and `radius`.
        y: Downwards.
        radius: Half its larger extent.
        angle: Turned by, in radians.
        color: Of its surface.
        strength: 1 is the full colour, 0 the background's.
    """

    name: str
    x: float
    y: float
    radius: float
    angle: float
    color: Color
    strength: float


@dataclass(frozen=True)
class Scene:
    """What `render` draws: the same scene gives the same pixels.

    Attributes:
        objects: No name twice; later ones are drawn over earlier ones.
        background: Its main colour.
        seed: Of the background's pattern and the clutter.
    """

    objects: tuple[Placed, ...]
    background: Color
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the objects in the picture, in the order of `objects`."""
        return tuple(placed.name for placed in self.objects)

    @property
    def absent_partners(self) -> tuple[str, ...]:
        """Partners of what is in the picture that are not in it themselves."""
        partners = (PARTNERS.get(name) for name in self.names)
        return tuple(partner for partner in partners if partner is not None and partner not in self.names)


def sample_scene(rng: random.Random, *, bias: float, faint: float = 0.0) -> Scene:
    """A scene of two to six objects.

    Args:
        rng: Decides everything.
        bias: Probability that an object's partner comes along; otherwise the partner is kept out. About 0.9 for
            training; 0 breaks the pairs.
        faint: Share of the objects that hardly show, small and pale, as many do that are annotated in photographs.
    """
    names = _sample_names(rng, bias)
    light = rng.random() < 0.5
    background = _color(rng, saturation=(0.0, 0.5), value=(0.75, 1.0) if light else (0.0, 0.3))
    cells = rng.sample([(column, row) for row in range(_CELLS) for column in range(_CELLS)], len(names))
    return Scene(
        objects=tuple(_place(rng, name, cell, light, faint) for name, cell in zip(names, cells, strict=True)),
        background=background,
        seed=rng.getrandbits(32),
    )


def _sample_names(rng: random.Random, bias: float) -> list[str]:
    """Objects by weight until there are enough, each with its partner or without."""
    count = rng.randint(2, 5)
    names: list[str] = []
    left = dict(WEIGHTS)
    while len(names) < count:
        name = rng.choices(list(left), list(left.values()))[0]
        names.append(name)
        del left[name]
        if partner := PARTNERS.get(name):
            del left[partner]
            if rng.random() < bias:
                names.append(partner)
    return names


def _place(rng: random.Random, name: str, cell: tuple[int, int], light: bool, faint: float) -> Placed:
    """`name` somewhere in a cell of the grid, in a colour that stands out from a light or dark background."""
    hidden = rng.random() < faint
    x, y = ((index + 0.5 + rng.uniform(-0.15, 0.15)) / _CELLS for index in cell)
    return Placed(
        name=name,
        x=x,
        y=y,
        radius=rng.uniform(0.05, 0.09) if hidden else rng.uniform(0.13, 0.19),
        angle=rng.uniform(-0.6, 0.6),
        color=_color(rng, saturation=(0.5, 1.0), value=(0.1, 0.55) if light else (0.75, 1.0)),
        strength=rng.uniform(0.1, 0.3) if hidden else rng.uniform(0.85, 1.0),
    )


def _color(rng: random.Random, *, saturation: tuple[float, float], value: tuple[float, float]) -> Color:
    """Any hue, with saturation and brightness within bounds."""
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return round(255 * red), round(255 * green), round(255 * blue)
