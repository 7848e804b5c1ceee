"""ARO: whether the true caption of an image is likelier than all that were made of it.

Source: M. Yuksekgonul and others, arXiv 2210.01936; mertyg/vision-language-models-are-bows, `aro_datasets.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.evaluation.tasks.aro.shuffles import WAYS, Tag, cleaned, shuffled
from truthkit.files.json_text import shown
from truthkit.files.reading import Record, read_records
from truthkit.files.shapes import FINITE, TEXT, check
from truthkit.images.regions import Box, region, split_region
from truthkit.statistics.intervals import FloatArray, ratio
from truthkit.statistics.numbers import numbers
from truthkit.statistics.score import Score

FILES = {
    "visual_genome_relation.json": "vg_relation",
    "visual_genome_attribution.json": "vg_attribution",
    "coco_karpathy_test.json": "coco_order",
    "coco_karpathy_val.json": "coco_order",
    "flickr30k_test.json": "flickr_order",
    "flickr30k_val.json": "flickr_order",
}
"""The released files, and what each tests."""

SUBSETS = ("vg_relation", "vg_attribution", "coco_order", "flickr_order")
ORDERS = ("coco_order", "flickr_order")

_FEWEST = 25
"""Cases that a pair of attributes needs to be counted."""

_BOX = {f"bbox_{name}!": FINITE for name in ("x", "y", "w", "h")}


@dataclass(frozen=True)
class Question:
    """One test case.

    Attributes:
        id: its subset and its number in it, from 1.
        subset: one of `SUBSETS`.
        image: the image's name in the data, with the part that is shown, if not all is.
        captions: the true one first.
        ways: how each of the others was made.
        group: the relation, or the two attributes; "" for orders.
        place: where it stands, for messages.
    """

    id: str
    subset: str
    image: str
    captions: tuple[str, ...]
    ways: tuple[str, ...] = ()
    group: str = ""
    place: str = ""

    @property
    def box(self) -> Box | None:
        """The part of the image that is shown."""
        return split_region(self.image)[1]


def read_questions(path: Path) -> list[Question]:
    """Test cases of a released file, or of those in a folder; those of order tests have their true caption alone.

    Raises:
        NotAvailableError: a folder without any of `FILES`.
        ArgumentError: a record of another form; the message names it.
    """
    files = [path]
    if path.is_dir():
        files = [path / name for name in FILES if (path / name).is_file()]
        if not files:
            raise NotAvailableError(f"{path} has none of ARO's files: {', '.join(FILES)}.")
    found = [question for file in files for question in _of_file(file)]
    twice = [name for name, count in Counter(question.id for question in found).items() if count > 1]
    if twice:
        raise ArgumentError(f"{path} has {twice[0].split()[0]} in two files; pass one of them.")
    return found


def with_shuffles(questions: Sequence[Question], tag: Tag, *, seed: int = 0) -> list[Question]:
    """The questions, those of order tests with their shuffled captions; without those that no shuffle can change.

    Args:
        questions: from `read_questions`.
        tag: parts of speech, as `shuffles.tagger` gives.
        seed: another one gives other shuffles.

    Raises:
        ArgumentError: nothing is left.
    """
    found = []
    for question in questions:
        others = shuffled(question.captions[0], tag, seed=seed) if question.subset in ORDERS else {}
        if others:
            captions = (question.captions[0], *others.values())
            found.append(replace(question, captions=captions, ways=tuple(others)))
        elif question.subset not in ORDERS:
            found.append(question)
    if not found:
        raise ArgumentError("no caption can be put into another order; expected some of two words and more.")
    return found


def read_scores(path: Path, questions: Sequence[Question]) -> list[tuple[Question, list[float | None]]]:
    """Which question each record of a file scores, and its scores, the true caption's first.

    Records have `scores` or `log_probs`, an array or an object from caption to number, null for -inf; and `id`, as
    `Question.id`, unless they are one for each question in their order.

    Raises:
        ArgumentError: a record without scores, or with an id that is unknown or was there; or without ids another
            number of records than of questions.
    """
    records, known = read_records(path), {question.id: question for question in questions}
    named = ["id" in record.fields for record in records]
    if not all(named) and (any(named) or len(records) != len(questions)):
        raise ArgumentError(
            f"{path.name} has {len(records)} records for {len(questions)} questions; give all of them the 'id' of "
            f"their question, such as {questions[0].id!r}."
        )
    found: dict[str, tuple[Question, list[float | None]]] = {}
    for record, question in zip(records, questions if not any(named) else [None] * len(records), strict=True):
        if question is None:
            number = record.name("id")
            if number not in known:
                raise ArgumentError(f"{record.place}: id {number!r} is none of the {len(known)} questions.")
            question = known[str(number)]
        if question.id in found:
            raise ArgumentError(f"{record.place}: {question.id} was scored before.")
        found[question.id] = question, _scores(record, question)
    return list(found.values())


def score(
    questions: Sequence[Question],
    log_probs: Sequence[Sequence[float | None]],
    *,
    raw: Sequence[Sequence[float | None]] | None = None,
) -> Score:
    """Accuracy: the true caption is above each of the others; a tie is wrong. Intervals resample images.

    Metrics are `accuracy` over all cases; of every subset `accuracy_*`, and for those of Visual Genome `macro_*`, the
    mean over relations, or over pairs of attributes that have 25 cases; and for orders `above_*`, the share of captions
    above a way's shuffle. Where all captions score the same, -inf for one, which a decoder's plausibility constraint
    gives, the case is wrong, and `unscored`.

    Args:
        questions: what was scored.
        log_probs: of every question's captions, the true one first; None for -inf.
        raw: a contrast's own scores of the same, not normalised, for `raw_accuracy`.

    Raises:
        ArgumentError: no questions, or not one score for each caption.
    """
    if not questions or len(questions) != len(log_probs):
        raise ArgumentError(
            f"log_probs has {len(log_probs)} rows for {len(questions)} questions; expected one for each."
        )
    items = []
    for number, (question, own) in enumerate(zip(questions, log_probs, strict=True)):
        item = {
            "id": question.id,
            "category": question.subset,
            "image": split_region(question.image)[0],
            "group": question.group,
            "ways": list(question.ways),
            "captions": list(question.captions),
            "label": question.captions[0],
            "log_probs": list(own),
        }
        items.append(item | ({} if raw is None else {"raw_scores": list(raw[number])}))
    return of_items(items)


def of_items(items: Sequence[Mapping[str, Any]]) -> Score:
    """The score of items that have their captions' scores."""
    judged = [dict(item) | _judged(item) for item in items]
    subsets = [name for name in SUBSETS if any(item["category"] == name for item in judged)]
    sizes = Counter((item["category"], item["group"]) for item in judged if item["group"])
    groups = [key for key, count in sorted(sizes.items()) if key[0] == "vg_relation" or count >= _FEWEST]
    ways = [way for way in WAYS if any(way in item["ways"] for item in judged)]
    raw = all("raw_correct" in item for item in judged)
    keys: list[Hashable] = ["all", *subsets, *groups, *(("way", way) for way in ways), *(["raw"] if raw else [])]
    columns = {key: 2 * number for number, key in enumerate(keys)}
    counts = np.zeros((len(judged), 2 * len(columns)))
    for row, item in zip(counts, judged, strict=True):
        hits: dict[Hashable, bool] = dict.fromkeys(
            ("all", item["category"], (item["category"], item["group"])), item["correct"]
        )
        hits |= {("way", way): above for way, above in zip(item["ways"], item["above"], strict=False)}
        hits |= {"raw": item["raw_correct"]} if raw else {}
        for key in hits.keys() & columns.keys():
            row[columns[key] : columns[key] + 2] = 1, hits[key]

    def measure(totals: FloatArray) -> dict[str, FloatArray]:
        shares = {key: _share(totals[..., at], totals[..., at + 1]) for key, at in columns.items()}
        found = {"accuracy": shares["all"]} | ({"raw_accuracy": shares["raw"]} if raw else {})
        for subset in subsets:
            found[f"accuracy_{subset}"] = shares[subset]
            if own := [shares[key] for key in groups if key[0] == subset]:
                found[f"macro_{subset}"] = _mean(own)
        return found | {f"above_{way}": shares["way", way] for way in ways}

    def support(totals: FloatArray) -> dict[str, FloatArray]:
        found = {f"accuracy_{subset}": totals[..., columns[subset]] for subset in subsets}
        for subset in subsets:
            found[f"macro_{subset}"] = np.sum([totals[..., columns[key]] for key in groups if key[0] == subset], axis=0)
        return found | {f"above_{way}": totals[..., columns["way", way]] for way in ways}

    unscored = sum(item["unscored"] for item in judged)
    config = {"task": "aro", "cases": len(judged), "unscored": unscored} | ({"raw_scores": True} if raw else {})
    clusters: list[Hashable] = [item["image"] for item in judged]
    return Score(counts, clusters, measure, judged, config, support=support)


def by_group(score: Score) -> dict[str, Score]:
    """The score of every relation, and of every pair of attributes that has 25 cases; empty if there are not two."""
    rows: dict[str, list[int]] = {}
    for number, item in enumerate(score.items):
        if item["group"]:
            rows.setdefault(item["group"], []).append(number)
    kept = {
        group: own
        for group, own in sorted(rows.items())
        if len(own) >= _FEWEST or score.items[own[0]]["category"] == "vg_relation"
    }
    found = {}
    for group, own in kept.items():
        counts = np.array([[1.0, score.items[n]["correct"]] for n in own])
        clusters, items = [score.clusters[n] for n in own], [score.items[n] for n in own]
        found[group] = Score(counts, clusters, _accuracy, items, {**score.config, "group": group, "cases": len(own)})
    return found if len(found) > 1 else {}


def _accuracy(totals: FloatArray) -> dict[str, FloatArray]:
    return {"accuracy": ratio(totals[..., 1], totals[..., 0])}


def _share(count: FloatArray, right: FloatArray) -> FloatArray:
    """NaN where there is nothing, as in a resample without a relation."""
    return np.where(count > 0, ratio(right, count), np.nan)


def _mean(shares: Sequence[FloatArray]) -> FloatArray:
    """Over what is there."""
    stacked = np.stack(shares)
    there = np.isfinite(stacked)
    some = there.sum(axis=0)
    return np.where(some > 0, ratio(np.where(there, stacked, 0).sum(axis=0), some), np.nan)


def _judged(item: Mapping[str, Any]) -> dict[str, Any]:
    captions, values = item["captions"], numbers(item["log_probs"])
    if values.ndim != 1 or len(values) < 2 or (len(captions) > 1 and len(captions) != len(values)):
        raise ArgumentError(
            f"{item['id']} has {values.size} scores for {len(captions)} captions; expected one for each."
        )
    best = np.flatnonzero(values == values.max())
    found = {
        "above": (values[0] > values[1:]).tolist(),
        "correct": bool((values[0] > values[1:]).all()),
        "unscored": bool((values == values[0]).all()),
        "prediction": captions[best[0]] if len(best) == 1 and len(captions) == len(values) else None,
    }
    if "raw_scores" in item:
        raw = numbers(item["raw_scores"])
        found["raw_correct"] = bool((raw[0] > raw[1:]).all())
    return found


def _of_file(path: Path) -> list[Question]:
    records = read_records(path)
    first = records[0].fields
    if "caption" in first:
        subset = FILES.get(path.name) or ("flickr_order" if "flickr" in path.name.lower() else "coco_order")
        pairs = [(record, caption) for record in records for caption in _captions(record)]
        return [_ordered(record, caption, subset, number) for number, (record, caption) in enumerate(pairs, 1)]
    if not first.keys() & {"relation_name", "attributes"}:
        raise ArgumentError(
            f"{records[0].place}: no 'relation_name', 'attributes' or 'caption'; its fields are {', '.join(first)}."
        )
    subset = "vg_relation" if "relation_name" in first else "vg_attribution"
    return [_pair(record, subset, number) for number, record in enumerate(records, 1)]


def _pair(record: Record, subset: str, number: int) -> Question:
    check(record.fields, _BOX, record.place)
    if subset == "vg_relation":
        group = record.text("relation_name")
    else:
        check(record.fields, {"attributes!": [TEXT]}, record.place)
        if len(both := record.fields["attributes"]) != 2:
            raise ArgumentError(f"{record.place}: 'attributes' is {shown(both)}; expected two.")
        group = "_".join(both)
    captions = tuple(record.text(f"{name}_caption") for name in ("true", "false"))
    if captions[0] == captions[1]:
        raise ArgumentError(f"{record.place}: its true and its false caption are the same, {captions[0]!r}.")
    image = region(record.text("image_path"), *(record.fields[f"bbox_{name}"] for name in ("x", "y", "w", "h")))
    return Question(f"{subset} {number}", subset, image, captions, ("false",), group, record.place)


def _captions(record: Record) -> list[str]:
    check(record.fields, {"caption!": [TEXT]}, record.place)
    return list(record.fields["caption"])


def _ordered(record: Record, caption: str, subset: str, number: int) -> Question:
    if not (text := cleaned(caption)):
        raise ArgumentError(f"{record.place}: the caption {caption!r} has no words.")
    return Question(f"{subset} {number}", subset, record.text("image"), (text,), place=record.place)


def _scores(record: Record, question: Question) -> list[float | None]:
    name = record.field("scores", "log_probs")
    values = record.fields[name] if name else None
    pair = question.subset not in ORDERS
    if isinstance(values, dict):
        named = values if pair else {cleaned(caption): value for caption, value in values.items()}
        if missing := [caption for caption in question.captions if caption not in named]:
            raise ArgumentError(f"{record.place}: no score of {missing[0]!r}, a caption of {question.id}.")
        others = question.captions[1:] if pair else [caption for caption in named if caption != question.captions[0]]
        values = [named[caption] for caption in (question.captions[0], *others)]
    if not isinstance(values, list) or len(values) < 2 or (pair and len(values) != 2):
        wanted = "two" if pair else "the true caption's and the others'"
        raise ArgumentError(f"{record.place}: 'scores' is {shown(values)}; expected numbers, {wanted}.")
    for value in values:
        if value is not None:
            check(value, FINITE, f"{record.place}: a score")
    return values
