"""MMVP: whether both questions of a pair are answered right, and each by itself.

Source: S. Tong and others, arXiv 2401.06209; tsb0601/MMVP, `evaluate_mllm.py` and `gpt_grader.py`, where GPT-4 says
whether an answer is right. Here a parser reads which option an answer names.
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
from truthkit.files.reading import Record, read_records
from truthkit.statistics.intervals import FloatArray, ratio
from truthkit.statistics.score import Score

FILE = "Questions.csv"

_OPTIONS = re.compile(r"\(a\)\s*(.*?)[\s,;]*\(b\)\s*(.*)", re.IGNORECASE | re.DOTALL)
_MARKED = re.compile(r"\(([ab])\)", re.IGNORECASE)
_LETTER = re.compile(r"\W*([ab])\s*(?:[).:,]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        index: from 1; 1 and 2 are a pair, 3 and 4, and so on, and its image has its name.
        text: without the options.
        options: as the data writes them, "(a) Open (b) Closed".
        label: "a" or "b".
        place: where it stands, for messages.
    """

    index: int
    text: str
    options: str
    label: str
    place: str = ""

    @property
    def pair(self) -> int:
        """The number of its pair, from 1."""
        return (self.index + 1) // 2


def _letter(answer: str, options: str) -> str | None:
    marked = {found.lower() for found in _MARKED.findall(answer)}
    if marked:
        return marked.pop() if len(marked) == 1 else None
    if found := _LETTER.match(answer):
        return found[1].lower()
    named = [letter for letter, text in zip("ab", _texts(options), strict=False) if text and text in _folded(answer)]
    return named[0] if len(named) == 1 else None


def _strict(answer: str, _options: str) -> str | None:
    return {"(a)": "a", "a": "a", "(b)": "b", "b": "b"}.get(answer.strip().lower().removesuffix("."))


PARSERS: dict[str, Callable[[str, str], str | None]] = {"letter": _letter, "strict": _strict}


def parse(answer: str, options: str, *, parser: str = "letter") -> str | None:
    """Read an answer as "a", "b" or neither.

    Args:
        answer: what the model wrote.
        options: of the question.
        parser: `letter` takes the one marked option, "(a)"; else a letter that the answer begins with, followed by
            punctuation or nothing; else the one option whose words occur. `strict` takes "(a)" or "a" alone.
    """
    if parser not in PARSERS:
        raise ArgumentError(f"parser is {parser!r}; expected one of {', '.join(PARSERS)}.")
    return PARSERS[parser](answer, options)


def read_questions(path: Path) -> list[Question]:
    """Questions of Questions.csv, or of the folder that holds it; whole pairs, numbered in their order.

    Raises:
        ArgumentError: a record of another form, an index out of its order, or half a pair; the message names it.
    """
    if path.is_dir():
        path = path / FILE
    found = []
    for number, record in enumerate(read_records(path), 1):
        index = record.name("Index")
        if index not in (None, str(number)):
            raise ArgumentError(f"{record.place}: 'Index' is {index!r}; expected {number}, the questions in order.")
        label = record.text("Correct Answer").strip().lower().strip("()")
        if label not in ("a", "b"):
            said = record.text("Correct Answer")
            raise ArgumentError(f"{record.place}: 'Correct Answer' is {said!r}; expected '(a)' or '(b)'.")
        found.append(Question(number, record.text("Question"), record.text("Options"), label, record.place))
    if len(found) % 2:
        raise ArgumentError(f"{path.name} has {len(found)} questions; expected pairs, and the last one is alone.")
    return found


def read_answers(path: Path, questions: Sequence[Question], *, answer_field: str = "") -> list[str]:
    """One answer for each question, in `response` or another field (`answer_of`); by `question_id`, or in order.

    The authors' own files have the right option in `answer`, beside `response`.

    Raises:
        ArgumentError: an answer to no question, two to one, or none to some.
    """
    names = [f"question_id {question.index}" for question in questions]
    return answers_in_order(path, names, _name, lambda record: _answer(record, answer_field))


def score(questions: Sequence[Question], answers: Sequence[str], *, parser: str = "letter") -> Score:
    """Score one answer per question; intervals resample pairs.

    Args:
        questions: what was asked.
        answers: as many.
        parser: how an answer is read.
    """
    if len(questions) != len(answers):
        raise ArgumentError(f"answers has {len(answers)} texts for {len(questions)} questions; expected one for each.")
    items = []
    for question, answer in zip(questions, answers, strict=True):
        guess = parse(answer, question.options, parser=parser)
        items.append(
            {
                "id": question.index,
                "image": f"pair {question.pair}",
                "pair": question.pair,
                "question": question.text,
                "options": question.options,
                "answer": answer,
                "prediction": guess,
                "label": question.label,
                "correct": guess == question.label,
            }
        )
    return of_items(items, {"parser": parser})


def of_items(items: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> Score:
    """The score of items that were read already: `pair_accuracy`, `accuracy`, and `a_ratio`, the share of answers (a).

    A pair of which one question was asked counts in neither way as one.
    """
    pairs: dict[int, list[int]] = {}
    for number, item in enumerate(items):
        pairs.setdefault(item["pair"], []).append(number)
    counts = np.zeros((len(items), 5))
    for row, item in zip(counts, items, strict=True):
        row[:3] = 1, item["correct"], item["prediction"] == "a"
    for rows in pairs.values():
        if len(rows) == 2:
            counts[rows[0], 3:] = 1, all(items[number]["correct"] for number in rows)
    clusters: list[Hashable] = [item["pair"] for item in items]
    unparsed = sum(item["prediction"] is None for item in items)
    about = {"task": "mmvp", **config, "questions": len(items), "unparsed": unparsed}
    return Score(counts, clusters, _measure, list(map(dict, items)), about, support=_support)


def _measure(totals: FloatArray) -> dict[str, FloatArray]:
    asked, right, first, pairs, both = np.moveaxis(np.asarray(totals, float), -1, 0)
    return {
        "pair_accuracy": np.where(pairs > 0, ratio(both, pairs), np.nan),
        "accuracy": ratio(right, asked),
        "a_ratio": ratio(first, asked),
    }


def _support(totals: FloatArray) -> dict[str, FloatArray]:
    return {"pair_accuracy": totals[..., 3]}


def _texts(options: str) -> tuple[str, ...]:
    """What the two options say; nothing where they are written otherwise."""
    found = _OPTIONS.search(options)
    return tuple(map(_folded, found.groups())) if found else ()


def _folded(text: str) -> str:
    """In small letters, words apart by single blanks, with one at either end."""
    words = re.findall(r"[\w'-]+", text.lower())
    return f" {' '.join(words)} " if words else ""


def _name(record: Record) -> str:
    name = record.name("question_id")
    return f"question_id {int(name) if name is not None and name.isdecimal() else name}"


def _answer(record: Record, answer_field: str) -> str:
    there = not answer_field and isinstance(record.fields.get("response"), str)
    return str(record.fields["response"]) if there else answer_of(record, answer_field)
