"""Questions with hallucinated answers, for the amateur that ICD and LOL contrast with.

ICD's released code trains on HaluEval: the question alone asks (its `knowledge` does not appear), the hallucinated
answer answers, and of `general_data` the responses that were judged hallucinated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

from truthkit.errors import ArgumentError
from truthkit.files.json_text import shown
from truthkit.files.reading import Record, read_records
from truthkit.training.chat import Example

QUESTIONS = ("question", "prompt", "user_query", "instruction")
"""Fields that are looked for; where several are there and differ, one has to be named."""

ANSWERS = ("hallucinated_answer", "answer", "completion", "chatgpt_response", "output")
"""The same for the answer."""


def _chat(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def _plain(question: str) -> str:
    return f"Q: {question}\nA:"


FORMS: dict[str, Callable[[str], list[dict[str, str]] | str]] = {"chat": _chat, "plain": _plain}
"""How a question is put: through the chat template, or as "Q: ... A:", the form of TruthfulQA's prompt in
lm-evaluation-harness. Training in both is ours: an amateur hallucinates where it is asked as in its training."""


def read_pairs(
    path: str | PathLike[str],
    *,
    prompt_field: str | None = None,
    answer_field: str | None = None,
    knowledge: bool = False,
    forms: Sequence[str] = ("chat",),
) -> list[Example]:
    """The examples of a file that `read_records` reads, one per question and form.

    Args:
        path: the file. Records whose `hallucination` is no, in any case (HaluEval's `general_data`), are left out. With
            `instruction` as the question, `input` is put behind it, as Alpaca has them.
        prompt_field: the field that asks; None is the one of `QUESTIONS` that is there.
        answer_field: the field to learn; None is the one of `ANSWERS` that is there. `right_answer` gives the control:
            an adapter that has learnt the same questions and style, without the hallucination.
        knowledge: put the field `knowledge` before the question; it may be cut to fit. ICD does not.
        forms: names of `FORMS`.

    Raises:
        NotAvailableError: no such file.
        ArgumentError: a record lacks a field or has an empty one, or two that compete; an unknown form; a judgement
            that is neither yes nor no; or nothing to learn from.
    """
    if unknown := [form for form in forms if form not in FORMS]:
        raise ArgumentError(f"form {unknown[0]!r} is unknown; expected {' or '.join(FORMS)}.")
    records = [record for record in read_records(Path(path)) if _hallucinated(record)]
    if not records:
        raise ArgumentError(f"{path} has no hallucinated answers: all its records say hallucination: no.")
    return [
        example for record in records for example in _examples(record, prompt_field, answer_field, knowledge, forms)
    ]


def _hallucinated(record: Record) -> bool:
    """Whether a record is to be learnt; one that says nothing of it is."""
    judged = record.fields.get("hallucination")
    if judged in (None, "") or isinstance(judged, bool):
        return judged is not False
    word = judged.strip().lower() if isinstance(judged, str) else ""
    if word not in ("yes", "no"):
        raise ArgumentError(f"{record.place}: 'hallucination' is {shown(judged)}; expected yes or no.")
    return word == "yes"


def _examples(
    record: Record, prompt_field: str | None, answer_field: str | None, knowledge: bool, forms: Sequence[str]
) -> list[Example]:
    asks = prompt_field or record.field(*QUESTIONS, option="--prompt-field")
    question = record.text(*([asks] if asks else QUESTIONS)).strip()
    answer = record.text(*([answer_field] if answer_field else ANSWERS), option="--answer-field").strip()
    for what, text in (("question", question), ("answer", answer)):
        if not text:
            raise ArgumentError(f"{record.place}: the {what} is empty.")
    if asks == "instruction" and (given := record.text("input", default="").strip()):
        question = f"{question}\n\n{given}"
    passage = record.text("knowledge").strip() if knowledge else ""
    asked = f"{passage}\n\n{question}" if passage else question
    spare = (passage, question) if passage else (question,)
    return [Example(FORMS[form](asked), answer, spare, record.place) for form in forms]
