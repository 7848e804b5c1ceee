"""Questions and captions: labels by hand, absent objects chosen as POPE chooses them, held-out scenes without pairs."""

from __future__ import annotations

import random
import re

import pytest

from truthkit.scenes.questions import KINDS, caption, held_out, mentions, question_text, questions, with_article
from truthkit.scenes.scene import OBJECTS, PARTNERS, Scene, sample_scene

SCENES = [sample_scene(random.Random(seed), bias=0.5) for seed in range(100)]


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_right_and_balanced(kind: str) -> None:
    for number, scene in enumerate(SCENES):
        asked = questions(scene, random.Random(number), kind=kind, pairs=3)
        assert len(asked) == 2 * min(3, len(scene.names))
        assert sum(question.present for question in asked) * 2 == len(asked)
        assert len({question.name for question in asked}) == len(asked)
        for question in asked:
            assert question.present == (question.name in {placed.name for placed in scene.objects})
            assert question.kind == kind
            assert re.fullmatch(rf"Is there an? {question.name} in the image\?", question.text)


def absent(scene: Scene, kind: str, seed: int = 0) -> list[str]:
    return [q.name for q in questions(scene, random.Random(seed), kind=kind, pairs=2) if not q.present]


def test_popular_asks_about_the_most_frequent_absent_objects() -> None:
    for scene in SCENES:
        assert set(absent(scene, "popular")) == set([name for name in OBJECTS if name not in scene.names][:2])


def test_adversarial_asks_about_absent_partners_first() -> None:
    for scene in SCENES:
        partners = {PARTNERS[name] for name in scene.names if name in PARTNERS} - set(scene.names)
        asked = set(absent(scene, "adversarial"))
        assert asked <= partners if len(partners) >= 2 else partners <= asked


def test_random_asks_about_any() -> None:
    assert {name for seed, scene in enumerate(SCENES) for name in absent(scene, "random", seed)} == set(OBJECTS)


def test_unknown_kind_is_explained() -> None:
    with pytest.raises(ValueError, match=r"kind='odd'.*'random', 'popular', 'adversarial'"):
        questions(SCENES[0], random.Random(0), kind="odd")


def test_same_seed_same_questions() -> None:
    first, again = (questions(SCENES[0], random.Random(7), kind="random") for _ in range(2))
    assert first == again


@pytest.mark.parametrize(("name", "expected"), [("umbrella", "an umbrella"), ("apple", "an apple"), ("tv", "a tv")])
def test_articles(name: str, expected: str) -> None:
    assert with_article(name) == expected
    assert question_text(name) == f"Is there {expected} in the image?"


def test_captions_name_every_object_once_with_partners_side_by_side() -> None:
    for scene in SCENES:
        text = caption(scene, random.Random(3))
        said = mentions(text)
        assert sorted(said) == sorted(scene.names)
        assert len(re.findall(r"\ban? (?!picture)", text)) == len(said)
        for name in said:
            if PARTNERS.get(name) in said:
                assert abs(said.index(name) - said.index(PARTNERS[name])) == 1


def test_captions_vary() -> None:
    assert len({caption(SCENES[0], random.Random(seed)) for seed in range(40)}) > 8


def test_mentions_by_hand() -> None:
    text = "I can see two tennis rackets, a traffic light and an Apple; no carpet, no forklift. A traffic light."
    assert mentions(text) == ["tennis racket", "traffic light", "apple"]


def test_held_out_scenes_break_every_pair_and_show_plainly() -> None:
    scenes = held_out(200, seed=3)
    assert scenes == held_out(200, seed=3)
    assert scenes[:50] == held_out(50, seed=3)
    assert scenes != held_out(200, seed=4)
    for scene in scenes:
        assert not any(PARTNERS.get(name) in scene.names for name in scene.names)
        assert all(placed.strength > 0.8 for placed in scene.objects)
