"""AMBER: what the authors' script counts in descriptions and in yes/no answers, and its percentages.

Source: J. Wang and others, arXiv 2311.07397, and the benchmark's `inference.py`. "No" is the positive class. The script
rounds to tenths of a percent, F1 from rounded precision and recall, and guards against zero with 0.001 below every
quotient and 0.0001 below F1, 0.001 for existence; all of that is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.evaluation.tasks.amber.nouns import Nouns, Words
from truthkit.evaluation.tasks.answers import answer_of
from truthkit.evaluation.tasks.pope import scorer as pope
from truthkit.files.json_text import shown
from truthkit.files.reading import Record, read_json, read_records
from truthkit.files.shapes import INTEGER, TEXT, check
from truthkit.statistics.intervals import FloatArray
from truthkit.statistics.score import Score

KINDS = {
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number",
    "discriminative-attribute-action": "action",
}
"""The annotations' types of questions; all others but "generative" are relations."""

DESCRIPTION = "generative"
LEAVES = ("existence", "state", "number", "action", "relation")
ATTRIBUTE = ("state", "number", "action")
PARTS = {
    "all": (DESCRIPTION, *LEAVES),
    "generative": (DESCRIPTION,),
    "discriminative": LEAVES,
    "existence": ("existence",),
    "attribute": ATTRIBUTE,
    "relation": ("relation",),
}
"""What the script's evaluation types a, g, d, de, da and dr take in."""

PARSERS = ("official", "pope", *(name for name in pope.PARSERS if name != "official"))

_COUNTS = ("asked", "right", "truths_no", "answers_no", "right_no")
_SAID = ("responses", "clean", "nouns", "hallucinated", "truths", "named", "traps", "fallen_for")
_LISTS = ("nouns", "hallucinated", "ground_truth", "named", "traps", "fallen_for")
_GUARD = 0.001


@dataclass(frozen=True)
class Annotation:
    """What is true of one query.

    Attributes:
        id: from 1.
        kind: generative, or one of `LEAVES`.
        label: the answer to a question.
        truth: the objects in an image to describe.
        traps: objects that a model may invent there (`hallu`).
        image: its file, where the queries say.
        query: the question or request, likewise.
    """

    id: int
    kind: str
    label: str = ""
    truth: tuple[str, ...] = ()
    traps: tuple[str, ...] = ()
    image: str = ""
    query: str = ""


def read_annotations(folder: Path) -> dict[int, Annotation]:
    """The annotations of AMBER's `data` folder by id, with images and queries where `query` is there too.

    Raises:
        NotAvailableError: no `annotations.json` there.
        ArgumentError: it is no list of annotations; the message names the one.
    """
    path = folder / "annotations.json"
    if not path.is_file():
        raise NotAvailableError(f"{folder} has no annotations.json; pass the folder `data` of AMBER's repository.")
    data = read_json(path)
    if not isinstance(data, list) or not data:
        raise ArgumentError(f"{path}: expected a list of annotations.")
    queries = _queries(folder / "query")
    found: dict[int, Annotation] = {}
    for number, one in enumerate(data, 1):
        place = f"{path.name}, record {number}"
        check(one, {"id!": INTEGER, "type!": TEXT, "hallu": [TEXT]}, place)
        if one["id"] != number:
            raise ArgumentError(f"{place}: id is {one['id']}; expected {number}, the ids in order.")
        image, query = queries.get(number, ("", ""))
        if one["type"] == DESCRIPTION:
            check(one, {"truth!": [TEXT], "hallu!": [TEXT]}, place)
            objects = tuple(one["truth"]), tuple(one["hallu"])
            found[number] = Annotation(number, DESCRIPTION, "", *objects, image or f"AMBER_{number}.jpg", query)
            continue
        if one.get("truth") not in ("yes", "no"):
            raise ArgumentError(f"{place}: truth is {shown(one.get('truth'))}; expected 'yes' or 'no'.")
        found[number] = Annotation(number, KINDS.get(one["type"], "relation"), one["truth"], image=image, query=query)
    return found


def read_responses(path: Path, *, answer_field: str = "") -> list[tuple[int, str, str]]:
    """The ids and texts of a file of responses, and where each stands; in their order, some twice perhaps.

    Raises:
        ArgumentError: a record without an id or a text.
    """
    found = []
    for record in read_records(path):
        number = record.name("id", "question_id")
        if number is None or not number.isdecimal():
            raise ArgumentError(f"{record.place}: 'id' is {shown(number)}; expected the number of a query, from 1.")
        found.append((int(number), _text(record, answer_field), record.place))
    return found


def parse(response: str, label: str, *, parser: str = "official") -> str | None:
    """Read a response as "yes", "no" or neither.

    Args:
        response: what the model wrote.
        label: the right answer, which `vcd` looks at.
        parser: `official` takes `Yes` and `No`, exactly; `pope` is POPE's official one, the others are named as there.
    """
    if parser not in PARSERS:
        raise ArgumentError(f"parser is {parser!r}; expected one of {', '.join(PARSERS)}.")
    if parser == "official":
        return {"Yes": "yes", "No": "no"}.get(response)
    return pope.parse(response, label, parser="official" if parser == "pope" else parser)


def score(
    responses: Sequence[tuple[Annotation, str]],
    words: Words | None = None,
    *,
    parser: str = "official",
    part: str | None = None,
) -> Score:
    """Score responses, in percent as the script rounds them; intervals resample images.

    Metrics are `accuracy`, `precision`, `recall` and `f1` of all questions, the same of every type with its name
    behind, as `f1_state`; `chair`, `cover`, `hal` and `cog` of descriptions; and where there are both, `amber`.

    Args:
        responses: what was asked, with what was answered; twice is counted twice, as the script does.
        words: for the nouns of descriptions.
        parser: how an answer is read.
        part: one of `PARTS`, whose metrics are then there whatever was answered; None: those of what was.

    Raises:
        ArgumentError: nothing was answered; or descriptions, and no `words`.
    """
    if not responses:
        raise ArgumentError("there are no responses to score.")
    there = {annotation.kind for annotation, _ in responses}
    kinds = [kind for kind in (DESCRIPTION, *LEAVES) if kind in (PARTS[part] if part else there)]
    items = []
    for annotation, response in responses:
        if annotation.kind == DESCRIPTION:
            if words is None:
                raise ArgumentError("descriptions are scored by their nouns, and no words were given.")
            items.append(_described(annotation, response, words.nouns(response, annotation.truth, annotation.traps)))
        else:
            items.append(_answered(annotation, response, parse(response, annotation.label, parser=parser)))
    return of_items(items, kinds, {"parser": parser, **(words.config if words and DESCRIPTION in there else {})})


def of_items(items: Sequence[Mapping[str, Any]], kinds: Sequence[str], config: Mapping[str, Any]) -> Score:
    """The score of items that were read already, of these kinds."""
    columns = {kind: number for number, kind in enumerate(LEAVES)}
    counts = np.zeros((len(items), len(LEAVES) * len(_COUNTS) + len(_SAID)))
    for row, item in zip(counts, items, strict=True):
        if item["kind"] == DESCRIPTION:
            row[-len(_SAID) :] = [
                1,
                not item["hallucinated"],
                *(
                    len(item[name])
                    for name in ("nouns", "hallucinated", "ground_truth", "named", "traps", "fallen_for")
                ),
            ]
            continue
        guess, label = item["prediction"], item["label"]
        start = columns[item["kind"]] * len(_COUNTS)
        no = guess == "no"
        row[start : start + len(_COUNTS)] = [1, guess == label, label == "no", no, no and label == "no"]
    clusters: list[Hashable] = [item["image"] or item["id"] for item in items]
    asked = Counter(item["id"] for item in items)
    about = {
        "task": "amber",
        **config,
        "responses": len(items),
        "repeated": len(items) - len(asked),
        "unparsed": sum("prediction" in item and item["prediction"] is None for item in items),
    }
    measure, support = _Measure(kinds), _Measure(kinds).support
    return Score(counts, clusters, measure, list(map(dict, items)), about, shares=False, support=support)


class _Measure:
    """Metrics of kinds of queries from totals, as the script prints them."""

    def __init__(self, kinds: Sequence[str]):
        leaves = [kind for kind in kinds if kind != DESCRIPTION]
        groups = {"existence": ("existence",), "attribute": ATTRIBUTE, **{kind: (kind,) for kind in LEAVES[1:]}}
        self.groups = {name: own for name, own in groups.items() if set(own) & set(leaves)}
        self.leaves, self.described = tuple(leaves), DESCRIPTION in kinds

    def __call__(self, totals: FloatArray) -> dict[str, FloatArray]:
        asked, said = _split(totals)
        found: dict[str, FloatArray] = {}
        if self.leaves:
            found |= _rates(asked, LEAVES, guards=1)
            for name, own in self.groups.items():
                rates = _rates(asked, own, guards=len(own), f1_guard=_GUARD if name == "existence" else 1e-4)
                found |= {f"{metric}_{name}": values for metric, values in rates.items()}
        if self.described:
            found |= _of_descriptions(said)
        if self.leaves and self.described:
            found["amber"] = (100 - found["chair"] + found["f1"]) / 2
        return found

    def support(self, totals: FloatArray) -> dict[str, FloatArray]:
        """How many queries each metric rests on."""
        asked, said = _split(totals)
        found: dict[str, FloatArray] = {}
        for metric in ("accuracy", "precision", "recall", "f1"):
            found[metric] = _sum(asked, LEAVES, "asked")
            found |= {f"{metric}_{name}": _sum(asked, own, "asked") for name, own in self.groups.items()}
        return found | dict.fromkeys(("chair", "cover", "hal", "cog"), said["responses"])


def _split(totals: FloatArray) -> tuple[dict[str, dict[str, FloatArray]], dict[str, FloatArray]]:
    parts = np.moveaxis(np.asarray(totals, float), -1, 0)
    width = len(_COUNTS)
    asked = {
        kind: dict(zip(_COUNTS, parts[number * width : (number + 1) * width], strict=True))
        for number, kind in enumerate(LEAVES)
    }
    return asked, dict(zip(_SAID, parts[-len(_SAID) :], strict=True))


def _sum(asked: Mapping[str, Mapping[str, FloatArray]], kinds: Sequence[str], name: str) -> FloatArray:
    return np.sum([asked[kind][name] for kind in kinds], axis=0)


def _rates(
    asked: Mapping[str, Mapping[str, FloatArray]], kinds: Sequence[str], *, guards: int, f1_guard: float = 1e-4
) -> dict[str, FloatArray]:
    """The four metrics of some kinds together; `guards` is how many counters with a guard the script adds up."""
    right, right_no = (_sum(asked, kinds, name) for name in ("right", "right_no"))
    below = {name: _sum(asked, kinds, name) + guards * _GUARD for name in ("asked", "answers_no", "truths_no")}
    accuracy, precision, recall = (
        _percent(top / below[name])
        for top, name in ((right, "asked"), (right_no, "answers_no"), (right_no, "truths_no"))
    )
    shares = precision / 100, recall / 100
    f1 = _percent(2 * shares[0] * shares[1] / (shares[0] + shares[1] + f1_guard))
    empty = below["asked"] < 1
    rates = {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}
    return {name: np.where(empty, np.nan, values) for name, values in rates.items()}


def _of_descriptions(said: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    def share(top: str, bottom: str) -> FloatArray:
        return said[top] / (said[bottom] + _GUARD)

    found = {
        "chair": _percent(share("hallucinated", "nouns")),
        "cover": _percent(share("named", "truths")),
        "hal": _rounded(100 - share("clean", "responses") * 100),
        "cog": _percent(share("fallen_for", "traps")),
    }
    return {name: np.where(said["responses"] > 0, values, np.nan) for name, values in found.items()}


def _percent(shares: FloatArray) -> FloatArray:
    return _rounded(shares * 100)


def _rounded(values: FloatArray) -> FloatArray:
    """To one decimal as Python rounds, which numpy does otherwise in the last place."""
    array = np.asarray(values, float)
    return np.array([round(value, 1) for value in array.ravel().tolist()]).reshape(array.shape)


def _described(annotation: Annotation, response: str, nouns: Nouns) -> dict[str, Any]:
    return {
        "id": annotation.id,
        "kind": DESCRIPTION,
        "image": annotation.image,
        "answer": response,
        "nouns": list(nouns.all),
        "hallucinated": list(nouns.hallucinated),
        "ground_truth": list(annotation.truth),
        "named": list(nouns.named),
        "traps": list(annotation.traps),
        "fallen_for": list(nouns.fallen_for),
        "correct": not nouns.hallucinated,
    }


def _answered(annotation: Annotation, response: str, guess: str | None) -> dict[str, Any]:
    return {
        "id": annotation.id,
        "kind": annotation.kind,
        "image": annotation.image,
        "question": annotation.query,
        "answer": response,
        "prediction": guess,
        "label": annotation.label,
        "correct": guess == annotation.label,
    }


def _text(record: Record, answer_field: str) -> str:
    """The script reads "response"; without it, whatever field has an answer."""
    there = not answer_field and isinstance(record.fields.get("response"), str)
    return str(record.fields["response"]) if there else answer_of(record, answer_field)


def _queries(folder: Path) -> dict[int, tuple[str, str]]:
    """Image and text of every query that is there."""
    found: dict[int, tuple[str, str]] = {}
    whole = folder / "query_all.json"
    for path in [whole] if whole.is_file() else sorted(folder.glob("query_*.json")):
        for record in read_records(path):
            number = record.name("id")
            if number is None or not number.isdecimal():
                raise ArgumentError(f"{record.place}: 'id' is {shown(number)}; expected the number of a query.")
            found[int(number)] = record.text("image"), record.text("query")
    return found
