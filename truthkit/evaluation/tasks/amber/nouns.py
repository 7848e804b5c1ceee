"""The objects that a description names, true and invented, as AMBER's script finds them.

Nouns are nltk's (`NN…` tags, WordNet lemmas) that occur among the association words. Near-synonyms are words whose
vectors of a spaCy pipeline are more than 0.8 alike; without spaCy a noun is only itself, and the numbers say so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from truthkit.errors import ArgumentError, MissingExtraError
from truthkit.evaluation.tasks.words import Morphy, nltk_at, tokens
from truthkit.files.reading import read_json, read_text
from truthkit.files.shapes import TEXT, check

VECTORS = "en_core_web_lg"
"""The pipeline that the script takes."""

_ALIKE = 0.8

Alike = Callable[[str, str], bool]


class Nouns(NamedTuple):
    """What one description names.

    Attributes:
        all: its nouns among the association words, each time they occur.
        hallucinated: those that stand for nothing in the image.
        named: the true objects that some noun stands for.
        fallen_for: likewise the objects that a model may invent there.
    """

    all: tuple[str, ...]
    hallucinated: tuple[str, ...]
    named: tuple[str, ...]
    fallen_for: tuple[str, ...]


class Words:
    """AMBER's word lists, and what finds them in a text.

    Args:
        folder: with `relation.json` and `safe_words.txt`.
        vectors: a spaCy pipeline with word vectors; "auto" is the script's where it is installed, "none" goes without.
        nltk_data: folders to look for nltk's data in, after its own.

    Attributes:
        config: which way near-synonyms were found.

    Raises:
        MissingExtraError: the pipeline that was asked for is not installed.
    """

    def __init__(self, folder: Path, vectors: str = "auto", *, nltk_data: Sequence[Path] = ()):
        path = folder / "relation.json"
        data = read_json(path)
        if not isinstance(data, dict):
            raise ArgumentError(f"{path}: expected a JSON object from words to lists of words.")
        check(data, {"*": [TEXT]}, path.name)
        self.associations: dict[str, list[str]] = data
        self.known = {*data, *(word for own in data.values() for word in own)}
        self.safe = set(read_text(folder / "safe_words.txt").split("\n"))
        self.nltk_data = nltk_data
        self._alike, way = near_synonyms(vectors)
        self.config = {"near_synonyms": way}
        self._found: dict[tuple[Any, ...], Nouns] = {}

    def nouns(self, text: str, truth: Sequence[str], traps: Sequence[str]) -> Nouns:
        """What a description names, of an image with the objects `truth`; `traps` are those that may be invented.

        Raises:
            ArgumentError: an object has no entry in the associations.
        """
        key = (text, tuple(truth), tuple(traps))
        if key not in self._found:
            self._found[key] = self._compared(text, truth, traps)
        return self._found[key]

    def _compared(self, text: str, truth: Sequence[str], traps: Sequence[str]) -> Nouns:
        safe, false = (self._standing_for(objects) for objects in (truth, traps))
        nouns = [noun for noun in self.tagged(text) if noun in self.known]
        named, fallen, hallucinated = set[int](), set[int](), list[str]()
        for noun in nouns:
            if noun in self.safe:
                continue
            if (object_ := _first(safe, noun.__eq__)) is not None:
                named.add(object_)
                continue
            for alike in (noun.__eq__, self._near(noun)):
                if (object_ := _first(false, alike)) is not None:
                    fallen.add(object_)
            if (object_ := _first(safe, self._near(noun))) is not None:
                named.add(object_)
                continue
            hallucinated.append(noun)
        return Nouns(
            tuple(nouns),
            tuple(hallucinated),
            tuple(object_ for i, object_ in enumerate(truth) if i in named),
            tuple(object_ for i, object_ in enumerate(traps) if i in fallen),
        )

    def _standing_for(self, objects: Sequence[str]) -> list[tuple[str, int]]:
        """The words that stand for objects, associations first, each with its object's number."""
        if missing := [one for one in objects if one not in self.associations]:
            raise ArgumentError(f"relation.json has no entry for {missing[0]!r}, an object of the annotations.")
        associated = [(word, i) for i, one in enumerate(objects) for word in self.associations[one]]
        return [*associated, *((one, i) for i, one in enumerate(objects))]

    def _near(self, noun: str) -> Callable[[str], bool]:
        alike = self._alike
        return (lambda word: alike(noun, word)) if alike else (lambda _word: False)

    def tagged(self, text: str) -> list[str]:
        """The lemmas of a text's nouns, in its own letters."""
        split, tagger, morphy = self._nltk
        return [morphy(word, "n") for word, tag in tagger.tag(split(text)) if tag.startswith("NN")]

    @cached_property
    def _nltk(self) -> tuple[Callable[[str], list[str]], Any, Morphy]:
        with nltk_at(self.nltk_data, "AMBER"):
            from nltk.tag.perceptron import PerceptronTagger
            from nltk.tokenize.punkt import PunktTokenizer

            sentences = PunktTokenizer("english")
            return lambda text: tokens(text, sentences), PerceptronTagger(), Morphy()


def _first(words: Sequence[tuple[str, int]], fits: Callable[[str], bool]) -> int | None:
    """The object of the first word that fits."""
    return next((object_ for word, object_ in words if fits(word)), None)


def near_synonyms(vectors: str) -> tuple[Alike | None, str]:
    """Whether two words are near-synonyms, and what that is found by."""
    if vectors == "none":
        return None, "none, exact words alone"
    name = VECTORS if vectors == "auto" else vectors
    pipeline = None
    with suppress(ImportError, OSError):  # spaCy says with an OSError that it has no such pipeline
        import spacy

        pipeline = spacy.load(name)
    if pipeline is None and vectors == "auto":
        return None, f"none, exact words alone: spaCy's {VECTORS} is not installed"
    if pipeline is None:
        raise MissingExtraError(
            f"near-synonyms by {name} need spaCy and that pipeline: pip install 'truthkit[amber]', then python -m "
            f"spacy download {name}; or do without, vectors none."
        )
    return _Similarity(pipeline), f"{name} {_version(pipeline.meta)}".strip()


class _Similarity:
    """Pairs of words under a pipeline, each compared once."""

    def __init__(self, pipeline: Any):
        self.pipeline = pipeline
        self.read: dict[str, Any] = {}
        self.pairs: dict[tuple[str, str], bool] = {}

    def __call__(self, one: str, other: str) -> bool:
        pair = one, other
        if pair not in self.pairs:
            for word in pair:
                if word not in self.read:
                    self.read[word] = self.pipeline(word)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of words without a vector, which are like none
                self.pairs[pair] = bool(self.read[one].similarity(self.read[other]) > _ALIKE)
        return self.pairs[pair]


def _version(meta: Mapping[str, Any]) -> str:
    return str(meta.get("version", ""))
