"""CHAIR: the objects that a caption names and the image does not have.

Source: A. Rohrbach and others, arXiv 1809.02156, and the script `chair.py` in its form for Python 3, which everyone's
numbers come from; what that script does to a caption is listed in `Vocabulary.objects`.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.evaluation.tasks.answers import answer_of
from truthkit.evaluation.tasks.chair.lemmas import Lemmatize, lemmatizer
from truthkit.files.json_text import shown
from truthkit.files.reading import read_json, read_records, read_text
from truthkit.statistics.intervals import FloatArray, ratio
from truthkit.statistics.score import Score

METRICS = ("chair_s", "chair_i", "recall")

# Pairs that the script takes for one word. Its "stove top oven" has three words and can never match.
_PAIRS = [
    "motor bike",
    "motor cycle",
    "air plane",
    "traffic light",
    "street light",
    "traffic signal",
    "stop light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "suit case",
    "sports ball",
    "baseball bat",
    "baseball glove",
    "tennis racket",
    "wine glass",
    "hot dog",
    "cell phone",
    "mobile phone",
    "teddy bear",
    "hair drier",
    "potted plant",
    "laptop computer",
    "home plate",
    "train track",
]
# A baby elephant is no person, a passenger train neither.
_YOUNG = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub")
_MERGED = {
    **{pair: pair for pair in _PAIRS},
    **{f"{age} {animal}": animal for animal in _YOUNG for age in ("baby", "adult")},
    **{f"passenger {vehicle}": vehicle for vehicle in ("jet", "train")},
    **{"bow tie": "tie", "toilet seat": "toilet", "wine glas": "wine glass"},
}
_FIRST = {pair.split()[0] for pair in _MERGED}


class Vocabulary:
    """The object names of COCO, the words that stand for them, and how they are found in a caption.

    Args:
        path: a file with one object per line, its name first, then its synonyms, separated by exactly ", ":
            a second space makes a word that never matches, as two in the original file do.
        lemmatizer: `nltk` or `pattern`. They find different objects: name yours beside your numbers.
        nltk_data: folders to look for nltk's data in, after its own.
    """

    def __init__(self, path: Path, lemmatizer: str = "nltk", *, nltk_data: Sequence[Path] = ()) -> None:
        lines = [line.strip().split(", ") for line in read_text(path).split("\n") if line.strip()]
        self.names: dict[str, str] = {word: words[0] for words in lines for word in words}
        self.lemmatizer = lemmatizer
        self.nltk_data = nltk_data

    @cached_property
    def _lemmas(self) -> Lemmatize:
        parts = {part for pair in _MERGED for part in (*pair.split(), _MERGED[pair])}
        return lemmatizer(self.lemmatizer, {*self.names, *parts, "toilet", "seat"}, nltk_data=self.nltk_data)

    def objects(self, caption: str) -> list[tuple[str, str]]:
        """The mentions of objects in a caption, in order: the word, and the object it stands for.

        Lower-case tokens become lemmas; two-word names are merged from left to right; where a toilet is named, a
        seat is none; the words that are left and stand for an object count, each time they occur.
        """
        lemmas = self._lemmas(caption)
        words = []
        i = 0
        while i < len(lemmas):
            merged = _MERGED.get(" ".join(lemmas[i : i + 2])) if lemmas[i] in _FIRST else None
            words.append(merged or lemmas[i])
            i += 2 if merged else 1
        seat = "seat" if "toilet" in words else None
        return [(word, self.names[word]) for word in words if word in self.names and word != seat]


@dataclass(frozen=True)
class Caption:
    """A caption of an image; `place` is where it stands, for messages."""

    image: int
    text: str
    place: str = ""


def read_captions(path: Path, *, answer_field: str = "") -> list[Caption]:
    """Captions of a file with `image_id` or `image`, and `answer_field`, or one of `caption` and `answers.FIELDS`.

    Raises:
        ArgumentError: an image has two captions, or a record two texts that compete; the message names the line.
    """
    found: dict[int, Caption] = {}
    for record in read_records(path):
        image = image_number(record.name("image_id", "image"), record.place)
        if image in found:
            raise ArgumentError(f"{record.place}: image {image} has a caption at {found[image].place} already.")
        found[image] = Caption(image, answer_of(record, answer_field, "caption"), record.place)
    return list(found.values())


def image_number(name: Any, place: str = "image") -> int:
    """The number of a COCO image: 42 of 42, "42", "000000000042.jpg" and "COCO_val2014_000000000042.jpg"."""
    text = "" if isinstance(name, bool) or not isinstance(name, str | int) else str(name)
    if (digits := re.search(r"(?<!\d)(\d{1,18})(?:\.\w+)?$", text)) is None:
        raise ArgumentError(
            f"{place}: {shown(name)} is no image number; expected 'image_id' or 'image', as 42 or 000042.jpg."
        )
    return int(digits[1])


def read_ground_truth(path: Path, vocabulary: Vocabulary) -> dict[int, set[str]]:
    """The objects of every image.

    Args:
        path: a prepared JSON, from image number to list of objects, possibly under the lemmatiser's name; or a folder
            with such a file named `chair_gt_<lemmatizer>*.json`, or with COCO's own `instances_*.json` and
            `captions_*.json` (minutes for all of COCO: save what `ground_truth_from_coco` returns as a prepared one).
        vocabulary: names the lemmatiser, and reads COCO's captions.
    """
    if not path.is_dir():
        return _prepared(path, vocabulary.lemmatizer)
    if prepared := sorted(path.glob(f"chair_gt_{vocabulary.lemmatizer}*.json")):
        return _prepared(prepared[0], vocabulary.lemmatizer)
    instances, captions = sorted(path.glob("instances_*.json")), sorted(path.glob("captions_*.json"))
    if not instances or not captions:
        raise NotAvailableError(
            f"{path} has no ground truth: expected chair_gt_{vocabulary.lemmatizer}.json, or COCO's instances_*.json "
            "and captions_*.json (from annotations_trainval2014.zip at cocodataset.org)."
        )
    return ground_truth_from_coco(instances, captions, vocabulary)


def ground_truth_from_coco(
    instances: Sequence[Path], captions: Sequence[Path], vocabulary: Vocabulary
) -> dict[int, set[str]]:
    """The objects of every image in COCO files: those annotated, and those that its captions mention."""
    found: dict[int, set[str]] = {}
    for path in instances:
        with _as_coco(path):
            data = read_json(path)
            for image in data["images"]:
                found.setdefault(image["id"], set())
            categories = {category["id"]: _name(category["name"], vocabulary, path) for category in data["categories"]}
            for annotation in data["annotations"]:
                found.setdefault(annotation["image_id"], set()).add(categories[annotation["category_id"]])
    for path in captions:
        with _as_coco(path):
            for annotation in read_json(path)["annotations"]:
                mentions = vocabulary.objects(annotation["caption"])
                found.setdefault(annotation["image_id"], set()).update(name for _, name in mentions)
    return found


def measure(totals: FloatArray) -> dict[str, FloatArray]:
    """Metrics from totals of (captions, with a hallucination, mentions, hallucinated ones, objects, objects named)."""
    captions, wrong, mentions, hallucinated, objects, named = np.moveaxis(np.asarray(totals, float), -1, 0)
    return {
        "chair_s": ratio(wrong, captions),
        "chair_i": ratio(hallucinated, mentions),
        "recall": ratio(named, objects),
    }


def score(captions: Sequence[Caption], truth: Mapping[int, set[str]], vocabulary: Vocabulary) -> Score:
    """Score captions; intervals resample images.

    Raises:
        ArgumentError: a caption of an image that has no ground truth.
    """
    rows, items = [], []
    clusters: list[Hashable] = []
    for caption in captions:
        if caption.image not in truth:
            raise ArgumentError(
                f"{caption.place or 'captions'}: image {caption.image} is not among the {len(truth)} with ground truth."
            )
        there = truth[caption.image]
        mentions = vocabulary.objects(caption.text)
        hallucinated = [word for word, name in mentions if name not in there]
        named = {name for _, name in mentions if name in there}
        rows.append((1, bool(hallucinated), len(mentions), len(hallucinated), len(there), len(named)))
        clusters.append(caption.image)
        items.append(
            {
                "image": caption.image,
                "caption": caption.text,
                "objects": [name for _, name in mentions],
                "hallucinated": hallucinated,
                "ground_truth": sorted(there),
                "correct": not hallucinated,
            }
        )
    config = {"task": "chair", "lemmatizer": vocabulary.lemmatizer, "captions": len(rows)}
    return Score(np.asarray(rows, float).reshape(-1, 6), clusters, measure, items, config)


def _prepared(path: Path, name: str) -> dict[int, set[str]]:
    data = read_json(path)
    if isinstance(data, dict) and name in data:
        data = data[name]
    lists = list(data.values()) if isinstance(data, dict) else [None]
    if not all(isinstance(objects, list) and all(isinstance(one, str) for one in objects) for objects in lists):
        raise ArgumentError(
            f"{path}: expected a JSON object from image numbers to lists of objects, or {{{name!r}: that}}."
        )
    return {image_number(image, path.name): set(objects) for image, objects in data.items()}


@contextmanager
def _as_coco(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise ArgumentError(f"{path} is no COCO file: it has no {shown(error.args[0])}.") from None


def _name(category: str, vocabulary: Vocabulary, path: Path) -> str:
    if category not in vocabulary.names:
        raise ArgumentError(f"{path}: category {shown(category)} is not among the synonyms; add a line for it.")
    return vocabulary.names[category]
