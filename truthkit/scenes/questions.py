"""What is asked and said about scenes: POPE's yes/no questions, captions, and the scenes held out for tests."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

from truthkit.errors import ArgumentError
from truthkit.scenes.scene import OBJECTS, PARTNERS, Scene, sample_scene

KINDS: tuple[str, ...] = ("random", "popular", "adversarial")
"""POPE's ways to choose absent objects: any, the most frequent ones, those that mostly come with what is there."""

CAPTION_PROMPT = "Describe the image."

_CAPTIONS = (
    "There is {} in the image.",
    "The image shows {}.",
    "A picture of {}.",
    "I can see {}.",
)


@dataclass(frozen=True)
class Question:
    """A yes/no question about one object.

    Attributes:
        text: As it is asked.
        name: The object asked about.
        present: The right answer.
        kind: One of `KINDS`: how the absent objects beside it were chosen.
    """

    text: str
    name: str
    present: bool
    kind: str


def with_article(name: str) -> str:
    """With "a" or "an": "a fork", "an umbrella"."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def listed(names: Iterable[str]) -> str:
    """As one lists things: "a fork, a knife and an apple"."""
    *first, last = map(with_article, names)
    return f"{', '.join(first)} and {last}" if first else last


def question_text(name: str) -> str:
    """POPE's question."""
    return f"Is there {with_article(name)} in the image?"


def questions(scene: Scene, rng: random.Random, *, kind: str, pairs: int = 3) -> list[Question]:
    """As many questions about present as about absent objects, in any order.

    Args:
        scene: The picture.
        rng: Draws the objects and the order.
        kind: One of `KINDS`, for the absent ones.
        pairs: Of each at most so many; fewer where fewer objects are present.

    Raises:
        ArgumentError: unknown `kind`.
    """
    present = rng.sample(scene.names, min(pairs, len(scene.names)))
    absent = _absent(scene, rng, kind)[: len(present)]
    asked = [Question(question_text(name), name, name in present, kind) for name in (*present, *absent)]
    return rng.sample(asked, len(asked))


def caption(scene: Scene, rng: random.Random) -> str:
    """A sentence that names every object once, partners side by side."""
    names: list[str] = []
    for name in rng.sample(scene.names, len(scene.names)):
        if name not in names:
            names.append(name)
            if PARTNERS.get(name) in scene.names:
                names.append(PARTNERS[name])
    return rng.choice(_CAPTIONS).format(listed(names))


def mentions(text: str) -> list[str]:
    """The objects that a text names, each once, in the order of first mention."""
    found = {name: match.start() for name in OBJECTS if (match := re.search(rf"\b{name}s?\b", text.lower()))}
    return sorted(found, key=found.__getitem__)


def held_out(count: int, seed: int = 0) -> list[Scene]:
    """Test scenes: no object has its partner with it, and every object shows plainly."""
    rng = random.Random(f"held out {seed}")
    return [sample_scene(rng, bias=0.0) for _ in range(count)]


def _absent(scene: Scene, rng: random.Random, kind: str) -> list[str]:
    """The objects that are not in the picture, in the order in which `kind` asks about them."""
    by_frequency = [name for name in OBJECTS if name not in scene.names]
    if kind == "random":
        return rng.sample(by_frequency, len(by_frequency))
    if kind == "popular":
        return by_frequency
    if kind == "adversarial":
        partners = rng.sample(scene.absent_partners, len(scene.absent_partners))
        return [*partners, *(name for name in by_frequency if name not in partners)]
    raise ArgumentError(f"kind={kind!r} is not known; use {', '.join(map(repr, KINDS))}.")
