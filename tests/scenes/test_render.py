"""Pictures: the same from the same scene, every object visible and unlike the others, and quickly drawn."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from truthkit.scenes.render import render
from truthkit.scenes.scene import OBJECTS, Placed, Scene, sample_scene

RED, WHITE = (200, 20, 20), (250, 250, 250)


def alone(name: str, **changes: object) -> Scene:
    """One object in the middle; the seed is one whose picture has no pattern and no clutter."""
    placed = Placed(name, 0.5, 0.5, 0.3, 0.0, RED, 1.0)
    return Scene((replace(placed, **changes),), WHITE, _PLAIN)  # type: ignore[arg-type]


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=int)


_PLAIN = next(seed for seed in range(1000) if len(render(Scene((), WHITE, seed)).getcolors() or []) == 1)


def test_same_scene_same_pixels() -> None:
    scene = sample_scene(random.Random(1), bias=0.9, faint=0.5)
    assert render(scene).tobytes() == render(scene).tobytes()
    assert render(scene).tobytes() != render(replace(scene, seed=scene.seed + 1)).tobytes()


@pytest.mark.parametrize("size", [32, 64, 96])
def test_size_and_mode(size: int) -> None:
    image = render(sample_scene(random.Random(1), bias=0.9), size)
    assert (image.size, image.mode) == ((size, size), "RGB")


def test_an_object_is_drawn_where_it_is_said_to_be() -> None:
    for name in OBJECTS:
        changed = np.abs(array(render(alone(name, x=0.25, y=0.7, radius=0.18))) - WHITE).sum(-1) > 60
        rows, columns = np.nonzero(changed)
        assert 40 < changed.sum() < 700, name
        assert rows.mean() / 64 == pytest.approx(0.7, abs=0.08), name
        assert columns.mean() / 64 == pytest.approx(0.25, abs=0.08), name


def test_no_two_objects_look_alike() -> None:
    pictures = [array(render(alone(name))).ravel() for name in OBJECTS]
    distances = [np.abs(a - b).mean() for i, a in enumerate(pictures) for b in pictures[:i]]
    assert min(distances) > 5


def test_faint_is_fainter_and_angle_turns() -> None:
    blank = array(render(Scene((), WHITE, _PLAIN)))
    full, pale = (np.abs(array(render(alone("car", strength=s))) - blank).sum() for s in (1.0, 0.2))
    assert pale == pytest.approx(0.2 * full, rel=0.1)
    upright = array(render(alone("fork"))) != blank
    lying = array(render(alone("fork", angle=np.pi / 2))) != blank
    assert (np.rot90(upright, -1) == lying).mean() > 0.97


def test_drawing_takes_less_than_two_milliseconds() -> None:
    rng = random.Random(2)
    scenes = [sample_scene(rng, bias=0.9) for _ in range(100)]
    start = time.process_time()
    for scene in scenes:
        render(scene)
    assert (time.process_time() - start) / len(scenes) < 0.002
