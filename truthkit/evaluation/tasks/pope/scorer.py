"""POPE: is an object in the image, yes or no. Questions, the four parsers in use, and the metrics.

Source: Y. Li and others, arXiv 2305.10355; the parsers follow the released scripts named beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from truthkit.errors import ArgumentError
from truthkit.files.reading import Record, read_records
from truthkit.statistics.intervals import FloatArray, ratio
from truthkit.statistics.score import Score

STRATEGIES = ("random", "popular", "adversarial")
METRICS = ("accuracy", "precision", "recall", "f1", "yes_ratio")

Parser = Callable[[str, str], str | None]
"""From an answer and its label to "yes", "no" or, where the parser allows it, None."""


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: its number in the file.
        image: the image's file name or number.
        text: the bare question.
        label: "yes" or "no".
        category: random, popular or adversarial, if known.
        place: where it stands, for messages.
    """

    id: str
    image: str
    text: str
    label: str
    category: str | None = None
    place: str = ""


def _official(answer: str, label: str) -> str:
    # AoiDragon/POPE, evaluate.py: the first sentence, split at spaces only, so a word with a line break is no "no".
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def _opera(answer: str, label: str) -> str:
    # shikiw/OPERA and sangminwoo/RITUAL, pope_eval: all sentences, full stops dropped, and contractions.
    words = answer.replace(".", "").replace(",", "").split(" ")
    negative = {"No", "not", "no", "NO"} & set(words) or any(word.endswith("n't") for word in words)
    return "no" if negative else "yes"


def _vcd(answer: str, label: str) -> str:
    # DAMO-NLP-SG/VCD, eval_pope.py: looks for the label itself, anywhere, so the reading depends on the label.
    other = {"yes": "no", "no": "yes"}[label]
    return label if label in answer.lower() else other


def _strict(answer: str, label: str) -> str | None:
    # lmms-eval, tasks/pope: the answer is exactly the word; anything else is neither.
    word = answer.lower().strip()
    return word if word in ("yes", "no") else None


PARSERS: dict[str, Parser] = {"official": _official, "opera": _opera, "vcd": _vcd, "strict": _strict}


def parse(answer: str, label: str, *, parser: str = "official") -> str | None:
    """Read an answer as "yes" or "no".

    Args:
        answer: what the model wrote, line breaks and all.
        label: the right answer. Only `vcd` looks at it, as its authors' script does.
        parser: `official`, `opera`, `vcd` or `strict`; the last gives None for what is neither.
    """
    if parser not in PARSERS:
        raise ArgumentError(f"parser is {parser!r}; expected one of {', '.join(PARSERS)}.")
    return PARSERS[parser](answer, label)


def read_questions(path: Path) -> list[Question]:
    """Questions of a file, or of a folder's `*_random`, `*_popular` and `*_adversarial` files.

    Fields are `question_id`, `image`, `text`, `label`, and `category` if it is there; those of the hub's data set,
    `question`, `answer` and `image_source`, are read as well.
    """
    files = [path]
    if path.is_dir():
        files = [file for name in STRATEGIES for file in sorted(path.glob(f"*_{name}.json*"))]
        if not files:
            raise ArgumentError(f"{path} has no POPE questions: expected files such as coco_pope_random.json in it.")
    return [_question(record, _category(record, file)) for file in files for record in read_records(file)]


def read_answers(path: Path) -> list[Record]:
    """Records of an answer file, or of all `.json` and `.jsonl` files of a folder; the category comes from the name."""
    files = [path]
    if path.is_dir():
        files = sorted(file for ending in ("*.json", "*.jsonl") for file in path.glob(ending))
        if not files:
            raise ArgumentError(f"{path} has no answers: expected .json or .jsonl files in it.")
    found = []
    for file in files:
        for record in read_records(file):
            category = _category(record, file)
            found.append(Record(record.place, {**record.fields, "category": category}))
    return found


def match(questions: Sequence[Question], answers: Sequence[Record]) -> list[str]:
    """The text of each question's answer.

    Answers are found by `question_id`, and by category where both sides have one. Answers without ids, or to questions
    whose ids repeat, are taken in order, within their category; ids and question texts must agree.

    Raises:
        ArgumentError: an answer to no question, two to one, none to some; the message names the line. Also if the
            answers are a file of questions.
    """
    by_category = all(record.fields.get("category") for record in answers) and all(q.category for q in questions)
    keys = [_key(question.id, question.category, by_category) for question in questions]
    if len(set(keys)) < len(keys) or any("question_id" not in record.fields for record in answers):
        texts = [_text(record) for record in _in_order(questions, answers, by_category)]
    else:
        texts = _by_id(keys, questions, answers, by_category)
    if all(text == question.text for text, question in zip(texts, questions, strict=True)):
        raise ArgumentError(
            f"every answer, from {answers[0].place} on, is the question itself: are these the questions?"
        )
    return texts


def _by_id(
    keys: Sequence[tuple[str | None, str]], questions: Sequence[Question], answers: Sequence[Record], by_category: bool
) -> list[str]:
    numbers = {key: number for number, key in enumerate(keys)}
    taken: dict[int, str] = {}
    found: dict[int, str] = {}
    for record in answers:
        key = _key(str(record.fields["question_id"]), record.fields.get("category"), by_category)
        if key not in numbers:
            where = f" of {key[0]}" if by_category else ""
            raise ArgumentError(f"{record.place}: question_id {key[1]}{where} is not among the {len(keys)} questions.")
        number = numbers[key]
        if number in found:
            raise ArgumentError(f"{record.place}: question_id {key[1]} was answered at {taken[number]} already.")
        found[number], taken[number] = _text(record), record.place
    if missing := [number for number in range(len(keys)) if number not in found]:
        first = questions[missing[0]]
        raise ArgumentError(
            f"{len(missing)} of {len(keys)} questions have no answer; "
            f"the first is question_id {first.id} ({first.place})."
        )
    return [found[number] for number in range(len(keys))]


def measure(totals: FloatArray) -> dict[str, FloatArray]:
    """Metrics from totals of (items, right, true yes, false yes, false no, yes); 0 where a denominator is 0.

    Precision, recall and F1 are those of "yes"; `yes_ratio` is over predictions, not labels.
    """
    items, right, true_yes, false_yes, false_no, yes = np.moveaxis(np.asarray(totals, float), -1, 0)
    precision, recall = ratio(true_yes, true_yes + false_yes), ratio(true_yes, true_yes + false_no)
    return {
        "accuracy": ratio(right, items),
        "precision": precision,
        "recall": recall,
        "f1": ratio(2 * precision * recall, precision + recall),
        "yes_ratio": ratio(yes, items),
    }


def score(questions: Sequence[Question], answers: Sequence[str], *, parser: str = "official") -> Score:
    """Score one answer per question; intervals resample images.

    Under `strict`, an answer that is neither counts as wrong, and as lmms-eval has it, recall leaves it out.
    """
    if len(questions) != len(answers):
        raise ArgumentError(f"answers has {len(answers)} texts for {len(questions)} questions; expected one for each.")
    rows, items = [], []
    clusters: list[Hashable] = []
    for question, answer in zip(questions, answers, strict=True):
        label, guess = question.label, parse(answer, question.label, parser=parser)
        yes, no, truth = guess == "yes", guess == "no", label == "yes"
        rows.append((1, guess == label, yes and truth, yes and not truth, no and truth, yes))
        clusters.append(question.image)
        items.append(
            {
                "question_id": question.id,
                "category": question.category,
                "image": question.image,
                "question": question.text,
                "answer": answer,
                "prediction": guess,
                "label": label,
                "correct": guess == label,
            }
        )
    config: dict[str, Any] = {"task": "pope", "parser": parser, "questions": len(rows)}
    if parser == "strict":
        config["unparsed"] = sum(item["prediction"] is None for item in items)
    return Score(np.asarray(rows, float), clusters, measure, items, config)


def by_category(score: Score) -> dict[str, Score]:
    """The score of each category apart; empty if there are not two at least."""
    names = [item["category"] for item in score.items]
    found = {}
    for name in dict.fromkeys(names):
        rows = [number for number, other in enumerate(names) if other == name]
        clusters, items = [score.clusters[row] for row in rows], [score.items[row] for row in rows]
        config = {**score.config, "category": name, "questions": len(rows)}
        found[str(name)] = Score(score.counts[rows], clusters, score.measure, items, config)
    return found if len(found) > 1 else {}


def _question(record: Record, category: str | None) -> Question:
    label = record.text("label", "answer").strip().lower()
    if label not in ("yes", "no"):
        raise ArgumentError(f"{record.place}: label is {label!r}; expected 'yes' or 'no'.")
    number = record.fields.get("question_id", record.fields.get("id"))
    if number is None:
        raise ArgumentError(f"{record.place}: no 'question_id'; its fields are {', '.join(record.fields)}.")
    image = record.fields.get("image_source", record.fields.get("image"))
    if not isinstance(image, str | int):
        raise ArgumentError(f"{record.place}: no 'image' name; its fields are {', '.join(record.fields)}.")
    return Question(str(number), str(image), record.text("text", "question"), label, category, record.place)


def _category(record: Record, file: Path) -> str | None:
    named = record.fields.get("category")
    if named is None:
        found = [name for name in STRATEGIES if name in file.stem.lower()]
        return found[0] if len(found) == 1 else None
    return str(named)


def _key(number: str, category: str | None, by_category: bool) -> tuple[str | None, str]:
    return (category if by_category else None, number)


def _text(record: Record) -> str:
    return record.text("answer", "text", "output")


def _in_order(questions: Sequence[Question], answers: Sequence[Record], by_category: bool) -> list[Record]:
    if len(questions) != len(answers):
        raise ArgumentError(
            f"{len(answers)} answers for {len(questions)} questions, and no ids to tell which is which."
        )
    waiting: dict[str | None, list[Record]] = {}
    for record in reversed(answers):
        waiting.setdefault(record.fields["category"] if by_category else None, []).append(record)
    found = []
    for question in questions:
        category = question.category if by_category else None
        if not waiting.get(category):
            raise ArgumentError(f"{question.place}: no answer of category {category!r} is left for this question.")
        record = waiting[category].pop()
        number = str(record.fields.get("question_id", question.id))
        if number != question.id:
            raise ArgumentError(f"{record.place}: question_id is {number}, but {question.place} has {question.id}.")
        asked = record.fields.get("question", question.text)
        if isinstance(asked, str) and question.text.strip().lower() not in asked.lower():
            raise ArgumentError(f"{record.place}: answers {asked!r}, but {question.place} asks {question.text!r}.")
        found.append(record)
    return found
