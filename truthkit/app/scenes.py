"""Drawn scenes as image files that say which scene they are, and what an answer names that is not in one."""

from __future__ import annotations

import io
import random
import re
from dataclasses import dataclass

from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from truthkit.printable import printable
from truthkit.scenes.questions import mentions
from truthkit.scenes.render import render
from truthkit.scenes.scene import Scene, sample_scene

_KEY = "truthkit scene"
_SIDE = 256
_MOST = 2**31
"""Seeds are below."""


def scene_of(seed: int) -> Scene:
    """The scene of a seed; no object has its partner with it."""
    return sample_scene(random.Random(f"app {seed}"), bias=0.0)


def scene_file(seed: int | None = None) -> bytes:
    """A scene as a PNG file that holds its seed; another one every time where that is None."""
    seed = random.randrange(_MOST) if seed is None else seed
    note, stream = PngInfo(), io.BytesIO()
    note.add_text(_KEY, str(seed))
    render(scene_of(seed), size=_SIDE).save(stream, "PNG", pnginfo=note)
    return stream.getvalue()


def known_scene(file: bytes) -> Scene | None:
    """The scene that an image file shows; None unless the file says which, and shows that one pixel for pixel."""
    with Image.open(io.BytesIO(file)) as image:
        if not isinstance(image, PngImageFile) or image.size != (_SIDE, _SIDE):
            return None
        written = image.text.get(_KEY, "")
        if not re.fullmatch(r"\d{1,10}", written) or int(written) >= _MOST:
            return None
        shown = image.convert("RGB")
    scene = scene_of(int(written))
    return scene if shown.tobytes() == render(scene, size=_SIDE).tobytes() else None


@dataclass(frozen=True)
class Named:
    """The objects of a picture in the words of an answer.

    Attributes:
        seen: those that it names and that are there.
        invented: those that it names and that are not.
        missed: those that are there and that it leaves out.
        places: where the text names an invented one, as (start, stop) of characters.
    """

    seen: list[str]
    invented: list[str]
    missed: list[str]
    places: list[tuple[int, int]]

    @classmethod
    def of(cls, text: str, scene: Scene) -> Named:
        """Objects are told by `truthkit.scenes.mentions`; `places` are those in the text as it is shown."""
        named, shown = mentions(text), printable(text)
        invented = [name for name in named if name not in scene.names]
        found = [match.span() for name in invented for match in re.finditer(rf"\b{name}s?\b", shown, re.IGNORECASE)]
        return cls(
            [name for name in named if name in scene.names],
            invented,
            [name for name in scene.names if name not in named],
            sorted(found),
        )
