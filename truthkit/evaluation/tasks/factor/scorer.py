"""FACTOR: whether the true completion of a text is likelier than three false ones.

Source: D. Muhlgay and others, arXiv 2307.06908; AI21Labs/factor, eval_factuality.py; voidism/DoLa, factor_eval.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from truthkit.errors import ArgumentError
from truthkit.files.reading import read_records
from truthkit.statistics.intervals import FloatArray
from truthkit.statistics.numbers import numbers
from truthkit.statistics.score import Score, mean_score

FORMS = ("official", "dola")


@dataclass(frozen=True)
class Question:
    """A prefix and its completions, the true one first; prefix + completion is the text to score."""

    prefix: str
    completions: tuple[str, ...]


def read_questions(path: Path, *, form: str = "official") -> list[Question]:
    """Questions of a FACTOR CSV.

    `official` takes the truncated prefixes and moves a space from a prefix's end to the completions; `dola` takes the
    truncated prefixes too, but for news the full ones, and puts a space before each completion.
    """
    _check(form)
    column = "full_prefix" if form == "dola" and "news" in path.name else "turncated_prefixes"  # sic
    questions = []
    for record in read_records(path):
        prefix = record.text(column)
        names = ("completion", "contradiction_0", "contradiction_1", "contradiction_2")
        completions = tuple(record.text(name) for name in names)
        if form == "dola":
            completions = tuple(f" {completion}" for completion in completions)
        else:
            space = " " if prefix.endswith(" ") else ""
            prefix = prefix.removesuffix(" ")
            completions = tuple(space + completion.lstrip(" ") for completion in completions)
        questions.append(Question(prefix, completions))
    return questions


def score(
    questions: Sequence[Question],
    log_probs: ArrayLike,
    token_counts: ArrayLike,
    *,
    form: str = "official",
    raw: Sequence[Sequence[float | None]] | None = None,
) -> Score:
    """Accuracy: the true completion is likelier than each of the others; a tie is wrong, where the scripts take it.

    A question whose completions all score the same, -inf for one, which a decoder's plausibility constraint gives,
    counts as wrong, and as `unscored` in the config and its item.

    Args:
        questions: what was scored.
        log_probs: summed log-probability of every completion's tokens, None for -inf; (questions, completions).
        token_counts: how many tokens they are; (questions, completions).
        form: `official` compares means per token, `dola` sums.
        raw: a contrast's own scores of the same, not normalised, for `raw_accuracy`.
    """
    _check(form)
    sums, counts = numbers(log_probs), np.asarray(token_counts, float)
    if sums.shape != counts.shape or sums.ndim != 2 or len(sums) != len(questions):
        raise ArgumentError(
            f"log_probs has shape {sums.shape}, token_counts {counts.shape}; expected ({len(questions)}, completions)."
        )
    values, right = _right(sums, counts, form)
    unscored = np.all(np.equal(values, values[:, :1]), axis=1)
    items = [
        {"prefix": question.prefix, "log_probs": row.tolist(), "correct": bool(hit), "unscored": bool(none)}
        | {"prediction": _first_of(question.completions, compared), "label": question.completions[0]}
        for question, row, compared, hit, none in zip(questions, sums, values, right, unscored, strict=True)
    ]
    config = {"task": "factor", "form": form, "questions": len(items), "unscored": int(unscored.sum())}
    columns = {"accuracy": right}
    if raw is not None:
        if numbers(raw).shape != sums.shape:
            raise ArgumentError(f"raw has shape {numbers(raw).shape}; expected that of log_probs, {sums.shape}.")
        columns["raw_accuracy"], config["raw_scores"] = _right(numbers(raw), counts, form)[1], True
        for item, scores, hit in zip(items, raw, columns["raw_accuracy"], strict=True):
            item |= {"raw_scores": list(scores), "raw_correct": bool(hit)}
    rows = np.stack([np.ones(len(right)), *(column.astype(float) for column in columns.values())], axis=1)
    clusters = [question.prefix for question in questions]
    return mean_score(rows, list(columns), clusters, items, config)


def _first_of(completions: Sequence[str], values: FloatArray) -> str | None:
    """The completion with the highest value; None for a tie."""
    best = np.flatnonzero(values == values.max())
    return completions[best[0]] if len(best) == 1 else None


def _right(sums: FloatArray, counts: FloatArray, form: str) -> tuple[FloatArray, Any]:
    """What is compared, and where the first of a row is above all others."""
    values = sums / counts if form == "official" else sums
    return values, np.all(values[:, :1] > values[:, 1:], axis=1)


def _check(form: str) -> None:
    if form not in FORMS:
        raise ArgumentError(f"form is {form!r}; expected one of {', '.join(FORMS)}.")
