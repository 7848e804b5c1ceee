"""Scenes: names that COCO's scorers know, pairs by the asked-for bias, the same from the same seed."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from truthkit.scenes.scene import OBJECTS, PARTNERS, Scene, sample_scene
from truthkit.scenes.shapes import SHAPES

# The 80 names of the COCO detection task, in its order.
COCO_TEXT = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, "
    "mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, "
    "teddy bear, hair drier, toothbrush"
)
COCO = COCO_TEXT.split(", ")


def sampled(count: int, *, bias: float, faint: float = 0.0) -> list[Scene]:
    rng = random.Random(5)
    return [sample_scene(rng, bias=bias, faint=faint) for _ in range(count)]


def test_names_are_cocos() -> None:
    assert len(COCO) == 80
    assert set(OBJECTS) <= set(COCO)
    assert len(OBJECTS) == len(set(OBJECTS)) == 20
    assert set(SHAPES) == set(OBJECTS)


def test_partners_are_mutual() -> None:
    assert set(PARTNERS) <= set(OBJECTS)
    assert all(PARTNERS[PARTNERS[name]] == name != PARTNERS[name] for name in PARTNERS)


def test_same_seed_same_scene() -> None:
    assert sampled(20, bias=0.5, faint=0.3) == sampled(20, bias=0.5, faint=0.3)


@pytest.mark.parametrize("bias", [0.0, 0.5, 0.9, 1.0])
def test_partners_come_along_as_often_as_asked(bias: float) -> None:
    """Oracle: a pair is drawn together with that probability, counted over the pairs of which anything is there."""
    together, pairs = 0, 0
    for scene in sampled(2000, bias=bias):
        drawn = {frozenset((name, PARTNERS[name])) for name in scene.names if name in PARTNERS}
        pairs += len(drawn)
        together += sum(pair <= set(scene.names) for pair in drawn)
    assert together / pairs == pytest.approx(bias, abs=0.03 if 0 < bias < 1 else 0)


def test_no_object_twice_two_to_six_of_them_and_all_inside() -> None:
    for scene in sampled(500, bias=0.9, faint=0.2):
        assert 2 <= len(scene.names) == len(set(scene.names)) <= 6
        assert all(0 < placed.x < 1 and 0 < placed.y < 1 for placed in scene.objects)


def test_frequent_objects_come_first() -> None:
    counts = Counter(name for scene in sampled(4000, bias=0.9) for name in scene.names)
    ranks = [OBJECTS.index(name) for name, _ in counts.most_common()]
    assert sum(ranks[:6]) < sum(ranks[-6:])
    assert set(counts) == set(OBJECTS)


def test_faint_is_the_share_of_pale_objects() -> None:
    pale = [placed.strength < 0.5 for scene in sampled(1000, bias=0.9, faint=0.2) for placed in scene.objects]
    assert sum(pale) / len(pale) == pytest.approx(0.2, abs=0.03)
    assert all(placed.strength > 0.8 for scene in sampled(200, bias=0.9) for placed in scene.objects)


def test_absent_partners_by_hand() -> None:
    placed = {placed.name: placed for scene in sampled(300, bias=0.0) for placed in scene.objects}

    def partners(*names: str) -> tuple[str, ...]:
        return Scene(tuple(placed[name] for name in names), (0, 0, 0), 1).absent_partners

    assert partners("fork", "kite", "mouse") == ("knife", "keyboard")
    assert partners("fork", "knife", "boat") == ()
