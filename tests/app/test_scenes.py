"""Scenes are known by their files, and what an answer names beside them is found."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from truthkit.app.scenes import Named, known_scene, scene_file, scene_of
from truthkit.scenes.scene import Scene


def saved(image: Image.Image, seed: str | None, kind: str = "PNG") -> bytes:
    note, stream = PngInfo(), io.BytesIO()
    if seed is not None:
        note.add_text("truthkit scene", seed)
    image.save(stream, kind, **({"pnginfo": note} if kind == "PNG" else {}))
    return stream.getvalue()


def test_a_scene_is_known_by_its_file() -> None:
    assert known_scene(scene_file(3)) == scene_of(3) != scene_of(4)
    assert scene_file(3) == scene_file(3)
    drawn = scene_file()
    assert known_scene(drawn) is not None
    assert drawn != scene_file()


def test_what_is_no_scene_is_not_taken_for_one() -> None:
    """A file that was changed, that says another scene, no scene or nonsense, or that is no PNG."""
    picture = Image.open(io.BytesIO(scene_file(3))).convert("RGB")
    changed = picture.copy()
    changed.putpixel((5, 5), (1, 2, 3))
    for file in (
        saved(changed, "3"),
        saved(picture, "4"),
        saved(picture, None),
        saved(picture, "three"),
        saved(picture, "9" * 10),
        saved(picture.resize((128, 128)), "3"),
        saved(picture, None, "JPEG"),
    ):
        assert known_scene(file) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A fork and a boat.", (["fork"], ["boat"], ["kite"], [(13, 17)])),
        ("Boats, a Kite, boats\x07.", (["kite"], ["boat"], ["fork"], [(0, 5), (15, 20)])),
        ("\x07 A traffic light.", ([], ["traffic light"], ["fork", "kite"], [(7, 20)])),
        ("Nothing.", ([], [], ["fork", "kite"], [])),
    ],
)
def test_what_an_answer_names(text: str, expected: tuple[list[str], ...]) -> None:
    """By hand; places are in the text as it is shown, where a bell is \\x07."""
    objects = {placed.name: placed for one in map(scene_of, range(100)) for placed in one.objects}
    named = Named.of(text, Scene((objects["fork"], objects["kite"]), (0, 0, 0), 0))
    assert (named.seen, named.invented, named.missed, named.places) == expected
