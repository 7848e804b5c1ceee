"""MemoTrap: is the ending that the instruction asks for likelier than the one known by heart.

Source: A. Liu and J. Liu, *The MemoTrap Dataset* (2023), github.com/liujch1998/memo-trap; the proverbs were a task of
the Inverse Scaling Prize (I. McKenzie and others, arXiv 2306.09479). A view without context has no instruction, as in
W. Shi and others (arXiv 2305.14739).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from truthkit.errors import ArgumentError
from truthkit.evaluation.tasks.sets import files_of, name_of
from truthkit.files.json_text import shown
from truthkit.files.reading import Record, read_records
from truthkit.statistics.intervals import FloatArray, ratio
from truthkit.statistics.numbers import numbers
from truthkit.statistics.score import Score


@dataclass(frozen=True)
class Question:
    """A prompt and its two endings.

    Attributes:
        category: the set that it is of.
        prompt: what both go on from.
        choices: the endings, with the blank in front.
        right: which of them follows the instruction.
    """

    category: str
    prompt: str
    choices: tuple[str, str]
    right: int

    @property
    def context(self) -> str:
        """The part of the prompt that says what to write; see `instruction`."""
        return instruction(self.prompt)


def read_questions(data: Path) -> list[Question]:
    """Questions of one file, or of all tables of a folder, each of which is a set named by its file.

    Raises:
        NotAvailableError, ArgumentError: there are none, or a line is damaged; the message names it.
    """
    return [_question(record, name_of(file)) for file in files_of(data, "*.csv") for record in read_records(file)]


def instruction(prompt: str) -> str:
    """What a prompt says before the text to go on with begins; "" for another form of prompt.

    Of translations that is all up to and with the line "to:"; of questions with lettered answers the line of the
    question; else all up to the first colon and the blank behind it.
    """
    translation, question, other = (
        re.match(form, prompt, re.DOTALL) for form in (r"Translate .*?\nto:\n", r"[^\n]+\n(?=A\. )", r"[^\n]+?: ")
    )
    found = translation or question or other
    return found[0] if found and prompt[found.end() :].strip() else ""


def score(
    questions: Sequence[Question],
    log_probs: Sequence[Sequence[float | None]],
    *,
    raw: Sequence[Sequence[float | None]] | None = None,
) -> Score:
    """Accuracy over all questions, that of every set, and the sets' mean, `macro_accuracy`, where there are several.

    Right is strictly likelier. A question whose endings score the same counts as wrong, and as `unscored`. Intervals
    resample prompts: some come twice.

    Args:
        questions: what was scored.
        log_probs: of both endings, summed over their tokens; None is -inf.
        raw: a contrast's own scores of the same, not normalised, for `raw_accuracy`.

    Raises:
        ArgumentError: other than two numbers for each question.
    """
    items: list[dict[str, Any]] = [
        {"category": question.category, "question": question.prompt, "label": question.choices[question.right]}
        for question in questions
    ]
    for name, values in (("log_probs", log_probs), ("raw_scores", raw)):
        if values is None:
            continue
        table = _pairs(values, questions, name)
        best = table.argmax(axis=1)
        same = table[:, 0] == table[:, 1]
        raised = "raw_" if name == "raw_scores" else ""
        for item, question, row, given, tie in zip(items, questions, best, values, same, strict=True):
            item |= {name: list(given), f"{raised}correct": bool(row == question.right and not tie)}
            if not raised:
                item |= {"prediction": None if tie else question.choices[row], "unscored": bool(tie)}
    return of_items(items)


def of_items(items: Sequence[Mapping[str, Any]]) -> Score:
    """The score of items with `category`, `question`, `correct`, `unscored` and, under a contrast, `raw_correct`."""
    sets = list(dict.fromkeys(str(item["category"]) for item in items))
    fields = ["correct", *(["raw_correct"] if items and all("raw_correct" in item for item in items) else [])]
    rows = np.zeros((len(items), len(sets), 1 + len(fields)))
    for row, item in zip(rows, items, strict=True):
        row[sets.index(str(item["category"]))] = [1, *(bool(item[field]) for field in fields)]

    def table(totals: FloatArray) -> FloatArray:
        return totals.reshape(*totals.shape[:-1], len(sets), 1 + len(fields))

    def measure(totals: FloatArray) -> dict[str, FloatArray]:
        by_set = table(totals)
        counts, shares = by_set[..., 0], ratio(by_set[..., 1], by_set[..., 0])
        pooled = by_set.sum(axis=-2)
        found = {"accuracy": ratio(pooled[..., 1], pooled[..., 0])}
        if len(sets) > 1:
            found["macro_accuracy"] = ratio(shares.sum(axis=-1), (counts > 0).sum(axis=-1))
            found |= {name: shares[..., place] for place, name in enumerate(sets)}
        if len(fields) > 1:
            found["raw_accuracy"] = ratio(pooled[..., 2], pooled[..., 0])
        return found

    def support(totals: FloatArray) -> dict[str, FloatArray]:
        return dict(zip(sets, np.moveaxis(table(totals)[..., 0], -1, 0), strict=True)) if len(sets) > 1 else {}

    config: dict[str, Any] = {"task": "memotrap", "questions": len(items)}
    config["unscored"] = sum(bool(item["unscored"]) for item in items)
    config |= {"raw_scores": True} if len(fields) > 1 else {}
    clusters = [item["question"] for item in items]
    lines = [dict(item) for item in items]
    return Score(
        rows.reshape(len(items), len(sets) * (1 + len(fields))), clusters, measure, lines, config, support=support
    )


def _pairs(values: Sequence[Sequence[float | None]], questions: Sequence[Question], name: str) -> FloatArray:
    if len(values) != len(questions):
        raise ArgumentError(f"{name} has {len(values)} rows for {len(questions)} questions; expected one for each.")
    for question, row in zip(questions, values, strict=True):
        if len(row) != 2:
            raise ArgumentError(f"{name} of {question.prompt[-60:]!r}: {len(row)} values; expected two.")
    table = numbers([list(row) for row in values]).reshape(-1, 2)
    if np.isnan(table).any():
        raise ArgumentError(f"{name} has NaN; expected numbers, or null for minus infinity.")
    return table


def _question(record: Record, category: str) -> Question:
    return Question(category, _prompt(record), _choices(record), _right(record))


def _prompt(record: Record) -> str:
    prompt = record.text("prompt")
    if not prompt.strip():
        raise ArgumentError(
            f"{record.place}: the prompt is empty; expected an instruction and the beginning of a text."
        )
    return prompt


def _choices(record: Record) -> tuple[str, str]:
    given = record.fields.get("classes")
    if isinstance(given, str):
        try:
            given = ast.literal_eval(given)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            given = record.text("classes")
    if not isinstance(given, list | tuple) or len(given) != 2 or not all(isinstance(one, str) for one in given):
        raise ArgumentError(f"{record.place}: 'classes' is {shown(given)}; expected a list of two texts.")
    first, second = given
    if not first.strip() or not second.strip() or first == second:
        raise ArgumentError(f"{record.place}: 'classes' is {shown(given)}; expected two endings that differ.")
    return first, second


def _right(record: Record) -> int:
    if (given := record.name("answer_index")) not in ("0", "1"):
        raise ArgumentError(f"{record.place}: 'answer_index' is {shown(given)}; expected 0 or 1.")
    return int(given)
