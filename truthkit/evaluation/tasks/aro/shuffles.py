"""Captions with their words in another order, in ARO's four ways; drawn by a seed and the caption alone.

Source: M. Yuksekgonul and others, arXiv 2210.01936, and `perturbations.py` of their repository. There captions are
shuffled whole by the global generator, tagged by spaCy, and cleaned and cut afterwards; here they are cleaned and cut
first, so that all have the same words and spaces, and a shuffle that changes nothing is drawn again.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from truthkit.evaluation.tasks.words import nltk_at

MOST_WORDS = 30

_DROPPED = re.compile(r'[.!"()*#:;~]')
_TRIES = 20

Tag = Callable[[list[str]], list[str]]
"""The part of speech of every word of a caption, as Penn Treebank tags."""


def cleaned(caption: str) -> str:
    """A caption in small letters, without punctuation but commas, of 30 words at most."""
    return " ".join(_DROPPED.sub(" ", caption.lower()).split()[:MOST_WORDS])


def shuffled(caption: str, tag: Tag, *, seed: int) -> dict[str, str]:
    """Every way's shuffle of a cleaned caption; a way that can't change it is left out.

    Args:
        caption: as `cleaned` gives it.
        tag: see `Tag`.
        seed: another one gives other shuffles.
    """
    words = caption.split()
    found = {}
    tags = tag([word.strip(",'") or word for word in words])
    for way, shuffle in WAYS.items():
        rng = random.Random(f"{seed} {way} {caption}")
        made = (" ".join(shuffle(words, tags, rng)) for _ in range(_TRIES))
        if (other := next((text for text in made if text != caption), None)) is not None:
            found[way] = other
    return found


def tagger(nltk_data: Sequence[Path] = ()) -> Tag:
    """Nltk's tagger.

    Args:
        nltk_data: folders to look for nltk's data in, after its own.

    Raises:
        MissingExtraError, NotAvailableError: nltk, or its data, is not on this machine.
    """
    with nltk_at(nltk_data, "ARO's order tests"):
        from nltk.tag.perceptron import PerceptronTagger

        tags = PerceptronTagger().tag
    return lambda words: [found for _, found in tags(words)]


def _nouns_and_adjectives(words: list[str], tags: list[str], rng: random.Random) -> list[str]:
    """Nouns among nouns, adjectives among adjectives."""
    for start in ("NN", "JJ"):
        words = _permuted(words, [i for i, tag in enumerate(tags) if tag.startswith(start)], rng)
    return words


def _all_but_nouns_and_adjectives(words: list[str], tags: list[str], rng: random.Random) -> list[str]:
    return _permuted(words, [i for i, tag in enumerate(tags) if not tag.startswith(("NN", "JJ"))], rng)


def _within_trigrams(words: list[str], _tags: list[str], rng: random.Random) -> list[str]:
    return [word for trigram in _trigrams(words) for word in rng.sample(trigram, len(trigram))]


def _order_of_trigrams(words: list[str], _tags: list[str], rng: random.Random) -> list[str]:
    trigrams = _trigrams(words)
    return [word for trigram in rng.sample(trigrams, len(trigrams)) for word in trigram]


WAYS: dict[str, Callable[[list[str], list[str], random.Random], list[str]]] = {
    "nouns_and_adjectives": _nouns_and_adjectives,
    "all_but_nouns_and_adjectives": _all_but_nouns_and_adjectives,
    "within_trigrams": _within_trigrams,
    "trigrams": _order_of_trigrams,
}


def _permuted(words: list[str], places: list[int], rng: random.Random) -> list[str]:
    found = list(words)
    for place, source in zip(places, rng.sample(places, len(places)), strict=True):
        found[place] = words[source]
    return found


def _trigrams(words: list[str]) -> list[list[str]]:
    return [words[start : start + 3] for start in range(0, len(words), 3)]
