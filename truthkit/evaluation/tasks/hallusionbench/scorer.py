"""HallusionBench by string match: accuracy per question, per pair of figures and per figure.

Source: T. Guan and others, arXiv 2310.14566; tianyi-lab/HallusionBench, `evaluation.py` and `utils.py`, which ask GPT-4
whether an answer is right. Here an answer is yes, no or neither, and neither is wrong; there, a model that does not
know about a figure that it is not shown is right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from truthkit.errors import ArgumentError
from truthkit.evaluation.tasks.answers import answer_of, answers_in_order
from truthkit.evaluation.tasks.pope import scorer as pope
from truthkit.files.reading import Record, read_records
from truthkit.statistics.intervals import FloatArray, ratio
from truthkit.statistics.score import Score

FILES = ("HallusionBench.json", "image.json", "non_image.json")
"""The released file, and the two of the hub's data set."""

CATEGORIES = ("VD", "VS")

_COLUMNS = ("asked", "right", "yes", "truth_yes", "wrong", "false_yes")
_GROUPS = ("pairs", "figures", "easy", "hard")


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        category: VD, which only the figure answers, or VS, which knowledge answers and a figure supplements or changes.
        subcategory: illusion, chart and so on.
        set: of figures that belong together.
        figure: its number in the set; 0 is the original one, or in VS none.
        number: of the question in the set.
        shown: "0" without a figure, "1" with an original, "2" with an edited one.
        text: as it is asked.
        label: "yes" or "no".
        image: the figure's file, "" for none.
        place: where it stands, for messages.
    """

    category: str
    subcategory: str
    set: str
    figure: str
    number: str
    shown: str
    text: str
    label: str
    image: str = ""
    place: str = ""

    @property
    def id(self) -> str:
        """Its category, subcategory, set, figure and number."""
        return "_".join((self.category, self.subcategory, self.set, self.figure, self.number))


def _words(answer: str) -> list[str]:
    return [word for word in re.findall(r"[a-z']+", answer.lower()) if word in ("yes", "no")]


def _either(answer: str) -> str | None:
    found = set(_words(answer))
    return found.pop() if len(found) == 1 else None


def _first(answer: str) -> str | None:
    return next(iter(_words(answer)), None)


PARSERS: dict[str, Callable[[str], str | None]] = {
    "either": _either,
    "first": _first,
    "strict": lambda answer: pope.parse(answer, "yes", parser="strict"),
    "pope": lambda answer: pope.parse(answer, "yes", parser="official"),
}


def parse(answer: str, *, parser: str = "either") -> str | None:
    """Read an answer as "yes", "no" or neither; the benchmark's own marks 1 and 0 are read too.

    Args:
        answer: what the model wrote.
        parser: `either`, `first`, `strict` or `pope`.
    """
    if parser not in PARSERS:
        raise ArgumentError(f"parser is {parser!r}; expected one of {', '.join(PARSERS)}.")
    marks = {"1": "yes", "0": "no"}
    return marks.get(answer.strip()) or PARSERS[parser](answer)


def read_questions(path: Path) -> list[Question]:
    """Questions of the released file, of a file of answers with them, or of a folder with `FILES`.

    Raises:
        ArgumentError: a record of another form, or a question that is there twice; the message names it.
    """
    return [question for question, _ in _read(path)]


def read_answers(
    path: Path, questions: Sequence[Question] | None, *, answer_field: str = ""
) -> tuple[list[Question], list[str]]:
    """Questions and their answers, in `model_prediction` or another field (`answer_of`).

    Records name their question as the data does; without any name they are taken in the order of the questions.

    Args:
        path: file of the answers.
        questions: what was asked; None: what the file says.
        answer_field: which field is the answer.

    Raises:
        ArgumentError: an answer to no question, two to one, or none to some.
    """
    if questions is None:
        read = _read(path)
        return [question for question, _ in read], [_answer(record, answer_field) for _, record in read]
    names = [question.id for question in questions]
    return list(questions), answers_in_order(path, names, _id, lambda record: _answer(record, answer_field))


def score(questions: Sequence[Question], answers: Sequence[str], *, parser: str = "either") -> Score:
    """Score one answer per question; intervals resample sets of figures.

    Args:
        questions: what was asked.
        answers: as many.
        parser: how an answer is read.
    """
    if len(questions) != len(answers):
        raise ArgumentError(f"answers has {len(answers)} texts for {len(questions)} questions; expected one for each.")
    items = []
    for question, answer in zip(questions, answers, strict=True):
        guess = parse(answer, parser=parser)
        items.append(
            {
                "id": question.id,
                "category": question.category,
                "subcategory": question.subcategory,
                "set": question.set,
                "figure": question.figure,
                "number": question.number,
                "shown": question.shown,
                "image": question.image or f"{question.category}_{question.subcategory}_{question.set}, no figure",
                "question": question.text,
                "answer": answer,
                "prediction": guess,
                "label": question.label,
                "correct": guess == question.label,
            }
        )
    return of_items(items, {"parser": parser})


def of_items(items: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> Score:
    """The score of items that were read already.

    Metrics are `accuracy`; `pair_accuracy`, all figures of one question right; `figure_accuracy`, all questions on one
    figure right; `easy_accuracy` and `hard_accuracy`, pairs of what is not, and is, edited; `yes_bias`, the share of
    yes among answers minus that among labels; and `false_yes`, the share of wrong answers whose label is no.
    """
    groups: list[dict[Hashable, list[int]]] = [{} for _ in _GROUPS]
    for number, item in enumerate(items):
        pair = (item["category"], item["subcategory"], item["set"], item["number"])
        figure = (item["category"], item["subcategory"], item["set"], item["figure"])
        blank = item["category"] == "VS" and item["figure"] == "0"
        edited = item["shown"] == "2"
        for group, key, belongs in zip(
            groups, (pair, figure, pair, pair), (True, not blank, not edited, edited), strict=True
        ):
            if belongs:
                group.setdefault(key, []).append(number)
    counts = np.zeros((len(items), len(_COLUMNS) + 2 * len(_GROUPS)))
    for row, item in zip(counts, items, strict=True):
        right, no = item["correct"], item["label"] == "no"
        row[: len(_COLUMNS)] = 1, right, item["prediction"] == "yes", not no, not right, not right and no
    for column, group in enumerate(groups):
        for rows in group.values():  # a group counts where its first question does
            start = len(_COLUMNS) + 2 * column
            counts[rows[0], start : start + 2] = 1, all(items[number]["correct"] for number in rows)
    clusters: list[Hashable] = [(item["category"], item["subcategory"], item["set"]) for item in items]
    unparsed = sum(item["prediction"] is None for item in items)
    about = {"task": "hallusionbench", **config, "questions": len(items), "unparsed": unparsed}
    return Score(counts, clusters, _measure, list(map(dict, items)), about, support=_support)


def by_category(score: Score) -> dict[str, Score]:
    """The score of each category and subcategory apart; empty if there are not two."""
    found: dict[str, list[dict[str, Any]]] = {}
    for item in score.items:
        for name in (item["category"], f"{item['category']} {item['subcategory']}"):
            found.setdefault(name, []).append(item)
    names = sorted(found, key=lambda name: (name not in CATEGORIES, name))
    subcategories = [name for name in names if name not in CATEGORIES]
    kept = {name: value for name, value in score.config.items() if name == "parser"}
    return {name: of_items(found[name], kept) for name in names} if len(subcategories) > 1 else {}


def _measure(totals: FloatArray) -> dict[str, FloatArray]:
    columns = np.moveaxis(np.asarray(totals, float), -1, 0)
    count = dict(zip(_COLUMNS, columns, strict=False))
    shares = {name: _share(*columns[len(_COLUMNS) + 2 * i :][:2]) for i, name in enumerate(_GROUPS)}
    return {
        "accuracy": ratio(count["right"], count["asked"]),
        "pair_accuracy": shares["pairs"],
        "figure_accuracy": shares["figures"],
        "easy_accuracy": shares["easy"],
        "hard_accuracy": shares["hard"],
        "yes_bias": ratio(count["yes"] - count["truth_yes"], count["asked"]),
        "false_yes": _share(count["wrong"], count["false_yes"]),
    }


def _support(totals: FloatArray) -> dict[str, FloatArray]:
    names = ("pair_accuracy", "figure_accuracy", "easy_accuracy", "hard_accuracy")
    found = {name: totals[..., len(_COLUMNS) + 2 * i] for i, name in enumerate(names)}
    return found | {"false_yes": totals[..., _COLUMNS.index("wrong")]}


def _share(count: FloatArray, right: FloatArray) -> FloatArray:
    """NaN where there is nothing."""
    return np.where(count > 0, ratio(right, count), np.nan)


def _read(path: Path) -> list[tuple[Question, Record]]:
    files = [path]
    if path.is_dir():
        files = [path / name for name in FILES if (path / name).is_file()]
        if not files:
            raise ArgumentError(f"{path} has no questions: expected HallusionBench.json in it.")
    read = [(_question(record), record) for file in files for record in read_records(file)]
    seen: dict[str, str] = {}
    for question, record in read:
        if question.id in seen:
            raise ArgumentError(f"{record.place}: {question.id} is at {seen[question.id]} already.")
        seen[question.id] = record.place
    return read


def _id(record: Record) -> str:
    return "_".join(_name(record, name) for name in ("category", "subcategory", "set_id", "figure_id", "question_id"))


def _name(record: Record, field: str) -> str:
    if (value := record.name(field)) is None:
        raise ArgumentError(f"{record.place}: no {field!r}; its fields are {', '.join(record.fields)}.")
    return value


def _question(record: Record) -> Question:
    category, label, shown = (_name(record, name) for name in ("category", "gt_answer", "visual_input"))
    if category not in CATEGORIES:
        raise ArgumentError(f"{record.place}: 'category' is {category!r}; expected VD or VS.")
    if label not in ("0", "1"):
        raise ArgumentError(f"{record.place}: 'gt_answer' is {label!r}; expected 0 or 1.")
    if shown not in ("0", "1", "2"):
        raise ArgumentError(f"{record.place}: 'visual_input' is {shown!r}; expected 0, 1 or 2.")
    subcategory, set_, figure, number = (
        _name(record, name) for name in ("subcategory", "set_id", "figure_id", "question_id")
    )
    image = "" if shown == "0" else _name(record, "filename").removeprefix("./")
    text, word = record.text("question"), {"1": "yes", "0": "no"}[label]
    return Question(category, subcategory, set_, figure, number, shown, text, word, image, record.place)


def _answer(record: Record, answer_field: str) -> str:
    there = not answer_field and isinstance(record.fields.get("model_prediction"), str)
    return str(record.fields["model_prediction"]) if there else answer_of(record, answer_field)
