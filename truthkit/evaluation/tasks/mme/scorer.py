"""MME: fourteen subtasks of two yes/no questions per image, in two totals.

Source: C. Fu and others, arXiv 2306.13394, and the benchmark's `eval_tool/calculation.py`. A subtask's score is 100
times accuracy over questions plus 100 times accuracy+, the share of images with both answers right; 200 at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.files.reading import read_records, read_text
from truthkit.statistics.intervals import FloatArray, ratio
from truthkit.statistics.score import Score

PERCEPTION = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
SUBTASKS = (*PERCEPTION, *COGNITION)


@dataclass(frozen=True)
class Question:
    """One question; `place` is where it stands, for messages."""

    subtask: str
    image: str
    text: str
    label: str
    place: str = ""


def parse(answer: str) -> str | None:
    """Read an answer: exactly yes or no, else whichever is within its first four characters, yes first; else None."""
    answer = answer.lower()
    if answer in ("yes", "no"):
        return answer
    start = answer[:4]
    return "yes" if "yes" in start else "no" if "no" in start else None


def read_questions(path: Path) -> list[Question]:
    """Questions of a folder of `<subtask>.txt` files with image, question and label between tabs, or of JSON lines.

    JSON lines have `category`, `image`, `question` and `answer`, the label.
    """
    if path.is_dir():
        return [question for question, _ in _rows(path, answers=False)]
    return [
        _question(
            record.text("category"),
            record.text("image"),
            record.text("question", "text"),
            record.text("answer", "label"),
            record.place,
        )
        for record in read_records(path)
    ]


def read_answers(path: Path) -> list[tuple[Question, str]]:
    """Questions and answers of a folder of `<subtask>.txt` files: image, question, label and answer between tabs.

    A line without a tab goes on with the answer above it.

    Raises:
        NotAvailableError: no such folder, or none of the subtasks in it.
        ArgumentError: a line of another form, a label that is neither yes nor no.
    """
    return _rows(path, answers=True)


def score(questions: Sequence[Question], answers: Sequence[str]) -> Score:
    """Score one answer per question; intervals resample images.

    Metrics are `perception`, `cognition` and one per subtask, in the order of the paper; subtasks without questions are
    left out, and totals count what is there.

    Raises:
        ArgumentError: an image that has other than two questions in a subtask.
    """
    if len(questions) != len(answers):
        raise ArgumentError(f"answers has {len(answers)} texts for {len(questions)} questions; expected one for each.")
    items = []
    right: Counter[tuple[str, str]] = Counter()
    asked: Counter[tuple[str, str]] = Counter()
    for question, answer in zip(questions, answers, strict=True):
        guess, pair = parse(answer), (question.subtask, question.image)
        right[pair] += guess == question.label
        asked[pair] += 1
        items.append(
            {
                "category": question.subtask,
                "image": question.image,
                "question": question.text,
                "answer": answer,
                "prediction": guess,
                "label": question.label,
                "correct": guess == question.label,
            }
        )
    for (subtask, image), count in asked.items():
        if count != 2:
            raise ArgumentError(f"{subtask}: image {image} has {count} questions; accuracy+ is defined for two.")
    present = [subtask for subtask in SUBTASKS if any(name == subtask for name, _ in asked)]
    columns = {subtask: number for number, subtask in enumerate(present)}
    # Per subtask: images, right answers, images with both right.
    counts = np.zeros((len(asked), len(present), 3))
    for row, ((subtask, _), hits) in enumerate(right.items()):
        counts[row, columns[subtask]] = (1, hits, hits == 2)
    # Four subtasks share COCO images; the names of the others, as 0001.png, are their own.
    clusters: list[Hashable] = [image if subtask in PERCEPTION[:4] else (subtask, image) for subtask, image in right]

    def measure(totals: FloatArray) -> Mapping[str, FloatArray]:
        images, hits, both = np.moveaxis(totals.reshape(*totals.shape[:-1], len(present), 3), -1, 0)
        scores = 100 * (ratio(hits, 2 * images) + ratio(both, images))
        by_subtask = {subtask: scores[..., column] for subtask, column in columns.items()}
        return {
            **_total("perception", PERCEPTION, by_subtask),
            **_total("cognition", COGNITION, by_subtask),
            **by_subtask,
        }

    config = {"task": "mme", "questions": len(items), "unparsed": sum(item["prediction"] is None for item in items)}
    return Score(counts.reshape(len(asked), -1), clusters, measure, items, config, shares=False)


def check_complete(questions: Sequence[Question], answered: Sequence[Question]) -> None:
    """Raise an `ArgumentError` if the answers do not belong to exactly these questions, labels included."""
    wanted, found = (Counter((q.subtask, q.image, q.text.strip(), q.label) for q in qs) for qs in (questions, answered))
    for question in answered:
        if (question.subtask, question.image, question.text.strip(), question.label) not in wanted:
            raise ArgumentError(f"{question.place}: this question, with this label, is not in the data.")
    if missing := list((wanted - found).elements()):
        raise ArgumentError(
            f"{len(missing)} of {len(questions)} questions have no answer; the first is {missing[0][:3]}."
        )


def _total(name: str, subtasks: Sequence[str], scores: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    parts = [scores[subtask] for subtask in subtasks if subtask in scores]
    return {name: np.sum(parts, axis=0)} if parts else {}


def _rows(path: Path, *, answers: bool) -> list[tuple[Question, str]]:
    if not path.is_dir():
        raise NotAvailableError(f"{path} is no folder; expected one with files such as existence.txt.")
    files = [file for file in (path / f"{subtask}.txt" for subtask in SUBTASKS) if file.exists()]
    if not files:
        raise NotAvailableError(f"{path} has none of MME's files: {', '.join(f'{name}.txt' for name in SUBTASKS)}.")
    fields = ("image", "question", "label", "answer")[: 4 if answers else 3]
    found: list[tuple[Question, str]] = []
    for file in files:
        first = len(found)
        for number, line in enumerate(read_text(file).replace("\r\n", "\n").split("\n"), 1):
            if not line.strip():
                continue
            if answers and "\t" not in line and len(found) > first:
                question, answer = found[-1]
                found[-1] = (question, f"{answer}\n{line}")
                continue
            parts = line.split("\t", 3)
            place = f"{file.name}, line {number}"
            if len(parts) < len(fields):
                raise ArgumentError(f"{place}: {len(parts)} fields between tabs; expected {', '.join(fields)}.")
            found.append((_question(file.stem, parts[0], parts[1], parts[2], place), parts[3] if answers else ""))
    if not found:
        raise ArgumentError(f"{path} has no questions: its files are empty.")
    return found


def _question(subtask: str, image: str, text: str, label: str, place: str) -> Question:
    if subtask not in SUBTASKS:
        raise ArgumentError(f"{place}: category is {subtask!r}; expected one of {', '.join(SUBTASKS)}.")
    if label.strip().lower() not in ("yes", "no"):
        raise ArgumentError(f"{place}: label is {label!r}; expected yes or no.")
    return Question(subtask, image.strip(), text.strip(), label.strip().lower(), place)
