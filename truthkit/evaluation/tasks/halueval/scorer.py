"""HaluEval, questions: is an answer hallucinated, yes or no; of every question its right and its hallucinated answer.

Source: J. Li and others, arXiv 2305.11747; RUCAIBox/HaluEval, evaluation/evaluate.py. There an unseeded coin draws
which of the two answers is judged; here both are, so that the accuracy is the mean of theirs over all coins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from truthkit.errors import ArgumentError
from truthkit.evaluation.tasks.sets import files_of, name_of
from truthkit.files.reading import Record, read_records
from truthkit.statistics.intervals import FloatArray, ratio
from truthkit.statistics.score import Score

PATTERNS = ("qa*.json", "qa*.jsonl")
INSTRUCTION = (
    "Here are questions, each with an answer. Judge whether the answer is hallucinated: wrong, made up, or no answer "
    "to the question that was asked. Your judgement is Yes if it is hallucinated, and No if it is right."
)
"""Ours; the authors' own, with its examples, is `evaluation/qa/qa_evaluation_instruction.txt` of their repository."""

JUDGEMENTS = (" Yes", " No")


@dataclass(frozen=True)
class Question:
    """A question with one of its answers.

    Attributes:
        category: the set that it is of.
        text: the question.
        answer: what is judged.
        hallucinated: the truth about it.
        knowledge: what the right answer was taken from.
    """

    category: str
    text: str
    answer: str
    hallucinated: bool
    knowledge: str = ""


def read_questions(data: Path) -> list[Question]:
    """Every question with its right and then its hallucinated answer, of a file or of the folder of several.

    Raises:
        NotAvailableError, ArgumentError: there are none, or one lacks an answer; the message says where.
    """
    return [
        question
        for file in files_of(data, *PATTERNS)
        for record in read_records(file)
        for question in _both(record, name_of(file))
    ]


def prompt(question: Question, instruction: str = INSTRUCTION, *, knowledge: bool = False) -> str:
    """What a judgement follows, in the form of the authors' script; with the knowledge in front if wanted."""
    return f"{instruction}\n\n{known(question) if knowledge else ''}{asked(question)}"


def known(question: Question) -> str:
    """The part of a prompt that has the knowledge."""
    return f"#Knowledge#: {question.knowledge}\n"


def asked(question: Question) -> str:
    """The part of a prompt that has question and answer."""
    return f"#Question#: {question.text}\n#Answer#: {question.answer}\n#Your Judgement#:"


def parse(text: str) -> bool | None:
    """Whether a judgement says hallucinated, by the authors' rule: Yes or No, one of them, anywhere; else None."""
    yes, no = "Yes" in text, "No" in text
    return yes if yes != no else None


def by_likelihood(log_probs: Sequence[float | None]) -> bool | None:
    """Whether Yes is the likelier judgement; None for a tie."""
    yes, no = (float("-inf") if one is None else one for one in log_probs)
    return yes > no if yes != no else None


def score(questions: Sequence[Question], judgements: Sequence[bool | None]) -> Score:
    """`accuracy` of judgements, `pair_accuracy` of questions with both, and the share of Yes; None is wrong.

    Args:
        questions: with what was judged.
        judgements: whether it was called hallucinated.

    Raises:
        ArgumentError: other than one judgement for each.
    """
    if len(questions) != len(judgements):
        raise ArgumentError(
            f"there are {len(judgements)} judgements of {len(questions)} answers; expected one for each."
        )
    words = {True: "yes", False: "no", None: None}
    return of_items(
        [
            {"category": question.category, "question": question.text, "answer": question.answer}
            | {"prediction": words[judged], "label": words[question.hallucinated]}
            | {"correct": judged == question.hallucinated}
            for question, judged in zip(questions, judgements, strict=True)
        ]
    )


def of_items(items: Sequence[Mapping[str, Any]]) -> Score:
    """The score of items with `category`, `question`, `prediction`, `label` and `correct`.

    A pair are a right and a hallucinated answer to the same question of the same set; intervals resample questions.
    """
    rows = [[1.0, item["correct"], item["prediction"] == "yes", 0.0, 0.0] for item in items]
    waiting: dict[tuple[str, str, str], list[int]] = {}
    for number, item in enumerate(items):
        key = str(item["category"]), str(item["question"])
        other = waiting.get((*key, "no" if item["label"] == "yes" else "yes"))
        if other:
            rows[number][3:] = [1.0, item["correct"] and items[other.pop(0)]["correct"]]
        else:
            waiting.setdefault((*key, str(item["label"])), []).append(number)

    def measure(totals: FloatArray) -> dict[str, FloatArray]:
        every, right, yes, pairs, both = np.moveaxis(totals, -1, 0)
        found = {"accuracy": ratio(right, every), "yes_ratio": ratio(yes, every)}
        return found | ({"pair_accuracy": ratio(both, pairs)} if paired else {})

    paired = any(row[3] for row in rows)
    config = {"task": "halueval", "judgements": len(items)}
    config["failed"] = sum(item["prediction"] is None for item in items)
    return Score(
        np.array(rows, float).reshape(-1, 5),
        [item["question"] for item in items],
        measure,
        [dict(item) for item in items],
        config,
        support=lambda totals: {"pair_accuracy": totals[..., 3]},
    )


def _both(record: Record, category: str) -> list[Question]:
    texts = {name: record.text(name).strip() for name in ("question", "right_answer", "hallucinated_answer")}
    if empty := [name for name, text in texts.items() if not text]:
        raise ArgumentError(f"{record.place}: {empty[0]!r} is empty; expected a text.")
    question, right, wrong = texts.values()
    if right == wrong:
        raise ArgumentError(f"{record.place}: the right answer is the hallucinated one, {right[:60]!r}.")
    knowledge = record.text("knowledge", default="").strip()
    answers = ((right, False), (wrong, True))
    return [Question(category, question, answer, hallucinated, knowledge) for answer, hallucinated in answers]
