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
from truthkit.evaluation.tasks.answers import answer_of
from truthkit.files.reading import Record, read_records
from truthkit.files.tables import ENDINGS
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
    """Records of an answer file, or of all such files of a folder; the category comes from the name."""
    files = [path]
    if path.is_dir():
        endings = (".json", ".jsonl", *ENDINGS)
        files = sorted(file for file in path.iterdir() if file.suffix in endings)
        if not files:
            raise ArgumentError(f"{path} has no answers: expected files in it that end in {', '.join(endings)}.")
    found = []
    for file in files:
        for record in read_records(file):
            category = _category(record, file)
            found.append(Record(record.place, {**record.fields, "category": category}))
    return found


def match(questions: Sequence[Question], answers: Sequence[Record], *, answer_field: str = "") -> list[str]:
    """The text of each question's answer, in `answer_field`; see `answer_of`.

    Answers are found by `question_id`, and by category where both sides have one. Where ids repeat, as in files merged
    of all categories, the question's text in `prompt` or `question` decides; without such texts, or without ids,
    answers are taken in order, within their category. Ids and question texts must agree.

    Raises:
        ArgumentError: an answer to no question, two to one, none to some, or with two texts that compete; the message
            names the line. Also if the answers are a file of questions.
    """
    for record in answers:  # what is wrong with a record is said before what is missing
        answer_of(record, answer_field)
    by_category = all(record.fields.get("category") for record in answers) and all(q.category for q in questions)
    keys = [_key(question.id, question.category, by_category) for question in questions]
    if len(set(keys)) < len(keys) or any("question_id" not in record.fields for record in answers):
        told = all(record.fields.keys() & {"question_id", "id"} and _asked(record) for record in answers)
        found = (_by_asked if told else _in_order)(questions, answers, by_category)
    else:
        found = _by_id(keys, questions, answers, by_category)
    texts = [answer_of(record, answer_field) for record in found]
    if all(text == question.text for text, question in zip(texts, questions, strict=True)):
        raise ArgumentError(
            f"every answer, from {answers[0].place} on, is the question itself: are these the questions?"
        )
    return texts


def _by_id(
    keys: Sequence[tuple[str | None, str]], questions: Sequence[Question], answers: Sequence[Record], by_category: bool
) -> list[Record]:
    numbers = {key: number for number, key in enumerate(keys)}
    found: dict[int, Record] = {}
    for record in answers:
        key = _key(str(record.name("question_id")), record.name("category"), by_category)
        if key not in numbers:
            where = f" of {key[0]}" if by_category else ""
            raise ArgumentError(f"{record.place}: question_id {key[1]}{where} is not among the {len(keys)} questions.")
        number = numbers[key]
        if number in found:
            raise ArgumentError(f"{record.place}: question_id {key[1]} was answered at {found[number].place} already.")
        found[number] = record
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
    number, image = record.name("question_id", "id"), record.name("image_source", "image")
    if number is None:
        raise ArgumentError(f"{record.place}: no 'question_id'; its fields are {', '.join(record.fields)}.")
    if image is None:
        raise ArgumentError(f"{record.place}: no 'image' name; its fields are {', '.join(record.fields)}.")
    return Question(number, image, record.text("text", "question"), label, category, record.place)


def _category(record: Record, file: Path) -> str | None:
    if (named := record.name("category")) is not None:
        return named
    found = [name for name in STRATEGIES if name in file.stem.lower()]
    return found[0] if len(found) == 1 else None


def _key(number: str, category: str | None, by_category: bool) -> tuple[str | None, str]:
    return (category if by_category else None, number)


def _asked(record: Record) -> str:
    """What the record says was asked; a prompt may say more than the question."""
    asked = record.fields.get("question") or record.fields.get("prompt")
    return asked.lower() if isinstance(asked, str) else ""


def _by_asked(questions: Sequence[Question], answers: Sequence[Record], by_category: bool) -> list[Record]:
    _as_many(questions, answers)
    waiting: dict[tuple[str | None, str], list[Record]] = {}
    for record in answers:
        key = _key(str(record.name("question_id", "id")), record.name("category"), by_category)
        waiting.setdefault(key, []).append(record)
    found = []
    for question in questions:
        left = waiting.get(_key(question.id, question.category, by_category), [])
        place = next((i for i, record in enumerate(left) if question.text.strip().lower() in _asked(record)), None)
        if place is None:
            raise ArgumentError(
                f"{question.place}: no answer with question_id {question.id} is left that was asked {question.text!r}."
            )
        found.append(left.pop(place))
    return found


def _as_many(questions: Sequence[Question], answers: Sequence[Record]) -> None:
    if len(questions) != len(answers):
        raise ArgumentError(
            f"{len(answers)} answers for {len(questions)} questions, and no ids to tell which is which."
        )


def _in_order(questions: Sequence[Question], answers: Sequence[Record], by_category: bool) -> list[Record]:
    _as_many(questions, answers)
    waiting: dict[str | None, list[Record]] = {}
    for record in reversed(answers):
        waiting.setdefault(record.name("category") if by_category else None, []).append(record)
    found = []
    for question in questions:
        category = question.category if by_category else None
        if not waiting.get(category):
            raise ArgumentError(f"{question.place}: no answer of category {category!r} is left for this question.")
        record = waiting[category].pop()
        number = record.name("question_id") or question.id
        if number != question.id:
            raise ArgumentError(f"{record.place}: question_id is {number}, but {question.place} has {question.id}.")
        asked = _asked(record)
        if asked and question.text.strip().lower() not in asked:
            raise ArgumentError(f"{record.place}: answers {asked!r}, but {question.place} asks {question.text!r}.")
        found.append(record)
    return found
