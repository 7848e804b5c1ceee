"""Answers to questions about a passage: exact match and F1, as SQuAD's script has them.

Source: P. Rajpurkar and others, arXiv 1606.05250 and 1806.03822, their evaluation script. The data is that of
S. Longpre and others (NQ-Swap, arXiv 2109.05052) and H. Wang and others (NQ-Synth and its prompts, arXiv 2409.07394).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from truthkit.errors import ArgumentError
from truthkit.evaluation.tasks.sets import files_of, name_of
from truthkit.files.json_text import shown
from truthkit.files.reading import Record, read_records
from truthkit.statistics.score import Score, mean_score

PATTERNS = ("*.jsonl", "*.json", "*.csv")
ASK = "Using only the references listed above, "
"""Between passage and question, with the blank behind; in NQ-Synth's own prompts too."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Question:
    """A question with its passage.

    Attributes:
        category: the set that it is of.
        text: the question, or the prompt without the passage.
        context: the passage, and what else of the prompt stands only where there is one.
        prompt: both.
        answers: those of the passage, any of which is right.
    """

    category: str
    text: str
    context: str
    prompt: str
    answers: tuple[str, ...]


def read_questions(data: Path) -> list[Question]:
    """Questions of a file, or of all files of a folder, each of which is a set named by its file.

    NQ-Synth has two records for each question, with the passage (`assigned_process` 0) and without (1), both whole
    prompts. NQ-Swap has `question`, `sub_context` and `sub_answer`; anything else `question`, `context` and `answers`.

    Raises:
        NotAvailableError, ArgumentError: there are none, half a question, no passage or no answer; the message says
            where.
    """
    found = []
    for file in files_of(data, *PATTERNS):
        records = read_records(file)
        read = _pairs if "assigned_process" in records[0].fields else _singles
        found += read(records, name_of(file))
    return found


def normalised(text: str) -> str:
    """In lower case, without punctuation and articles, single blanks between words."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split())


def first_line(text: str) -> str:
    """An answer's first line that is not blank."""
    return text.strip().partition("\n")[0].strip()


def exact_match(answer: str, right: Sequence[str]) -> bool:
    """Whether the normalised answer is one of the right ones, normalised."""
    return normalised(answer) in map(normalised, right)


def f1(answer: str, right: Sequence[str]) -> float:
    """The best F1 of the answer's words against a right one's; of no words, 1 against none and 0 against some."""
    return max(_overlap(normalised(answer).split(), normalised(one).split()) for one in right)


def score(questions: Sequence[Question], outputs: Sequence[str]) -> Score:
    """`exact_match` and `f1` of what was written, up to its first line break; intervals resample questions.

    Raises:
        ArgumentError: other than one output for each question.
    """
    if len(questions) != len(outputs):
        raise ArgumentError(f"there are {len(outputs)} answers for {len(questions)} questions; expected one for each.")
    items: list[dict[str, Any]] = []
    for question, output in zip(questions, outputs, strict=True):
        answer = first_line(output)
        items.append(
            {"category": question.category, "question": question.text, "answer": answer}
            | {"prediction": normalised(answer), "label": " / ".join(question.answers)}
            | {"correct": exact_match(answer, question.answers), "f1": f1(answer, question.answers)}
        )
    return of_items(items)


def of_items(items: Sequence[Mapping[str, Any]]) -> Score:
    """The score of items with `question`, `answer`, `correct` and `f1`."""
    rows = np.array([[1.0, item["correct"], item["f1"]] for item in items]).reshape(-1, 3)
    config = {"task": "context-qa", "questions": len(items), "empty": sum(not item["answer"] for item in items)}
    clusters = [item["question"] for item in items]
    return mean_score(rows, ["exact_match", "f1"], clusters, [dict(item) for item in items], config)


def _overlap(answer: list[str], right: list[str]) -> float:
    if not answer or not right:
        return float(answer == right)
    common = sum((Counter(answer) & Counter(right)).values())
    return 2 * common / (len(answer) + len(right))


def _pairs(records: Sequence[Record], category: str) -> list[Question]:
    """NQ-Synth's questions: the one prompt without passage is the end of the other, but for its first capital."""
    halves: dict[str, dict[str, Record]] = {}
    for record in records:
        number, process = record.name("input_index"), record.name("assigned_process")
        if number is None or process not in ("0", "1"):
            raise ArgumentError(
                f"{record.place}: 'input_index' is {shown(number)}, 'assigned_process' {shown(process)}; expected a "
                "number, and 0 or 1."
            )
        if (first := halves.setdefault(number, {}).setdefault(process, record)) is not record:
            raise ArgumentError(f"{record.place}: {first.place} has input_index {number} with process {process} too.")
    found = []
    for number, both in halves.items():
        if len(both) < 2:
            (one,) = both.values()
            missing = "without its passage (assigned_process 1)" if "0" in both else "with its passage (0)"
            raise ArgumentError(f"{one.place}: input_index {number} has no record {missing}; expected both.")
        prompt, bare = (both[process].text("context_string") for process in ("0", "1"))
        context = prompt[: len(prompt) - len(bare)]
        if not bare.strip() or not prompt.endswith(bare[1:]):
            raise ArgumentError(f"{both['0'].place}: its prompt does not end as that of {both['1'].place}.")
        if not context.strip():
            raise ArgumentError(f"{both['0'].place}: there is no context in front of the question.")
        found.append(Question(category, bare, context, prompt, _answers(both["0"], "gold_answers")))
    return found


def _singles(records: Sequence[Record], category: str) -> list[Question]:
    found = []
    for record in records:
        swapped = "sub_context" in record.fields
        text = record.text("question").strip()
        passage = record.text("sub_context" if swapped else "context").strip()
        for name, value in (("question", text), ("context", passage)):
            if not value:
                raise ArgumentError(f"{record.place}: the {name} is empty.")
        context = f"{passage} \n{ASK}"
        prompt = f"{context}answer the following question: \nQuestion: {text.rstrip('?').rstrip()} ?\nAnswer:"
        own = record.text("category", default=category)
        names = ("sub_answer",) if swapped else ("answers", "answer")
        found.append(Question(own, text, context, prompt, _answers(record, *names)))
    return found


def _answers(record: Record, *names: str) -> tuple[str, ...]:
    """Texts of a list, or the one text."""
    name = next((name for name in names if name in record.fields), names[0])
    given = record.fields.get(name)
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) and one.strip() for one in texts):
        raise ArgumentError(f"{record.place}: {name!r} is {shown(given)}; expected a text, or a list of some.")
    return tuple(texts)
