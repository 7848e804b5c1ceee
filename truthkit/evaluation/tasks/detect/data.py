"""What is asked: questions with answers of which it is known whether they are false, or images with their objects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from truthkit.detection.asked import Span
from truthkit.errors import ArgumentError
from truthkit.files.json_text import shown
from truthkit.files.reading import Record, read_records

CAPTION_PROMPT = "Describe the image."


@dataclass(frozen=True)
class Question:
    """A question, or an image to describe.

    Attributes:
        prompt: what is asked.
        answers: given ones; none where the model is to describe an image.
        false: which of them are.
        context: the passage that answers are to rest on, where the data has one.
        image: path of the image to describe.
        objects: what it shows.
        known: all objects that count when they are named.
    """

    prompt: str
    answers: tuple[str, ...] = ()
    false: tuple[bool, ...] = ()
    context: str | None = None
    image: str | None = None
    objects: frozenset[str] = frozenset()
    known: tuple[str, ...] = ()


def read_questions(path: Path) -> tuple[str, list[Question]]:
    """The form of a file, "truthfulqa", "halueval", "captions" or "labelled", and its questions.

    Raises:
        ArgumentError: it is of none of these forms.
        NotAvailableError: there is no such file.
    """
    if path.is_dir() or path.suffix.lower() == ".csv":
        return "truthfulqa", _truthfulqa(path)
    records = read_records(path)
    first = records[0].fields
    if "mc2_targets" in first or "mc1_targets" in first:
        return "truthfulqa", _truthfulqa(path)
    if "hallucinated_answer" in first:
        return "halueval", [_halueval(record) for record in records]
    if "objects" in first:
        known = sorted({name for record in records for name in _objects(record)})
        return "captions", [_caption(record, path.parent, known) for record in records]
    if "false" in first:
        return "labelled", _labelled(records)
    raise ArgumentError(
        f"{path} has the fields {', '.join(first)[:200]}; expected HaluEval's (question, right_answer, "
        "hallucinated_answer), TruthfulQA's, images with objects (image, objects), or answers with labels (prompt, "
        "answer, false)."
    )


def _truthfulqa(path: Path) -> list[Question]:
    from truthkit.evaluation.tasks.truthfulqa.choices import read_questions as read

    protocol = "authors" if path.suffix.lower() == ".csv" else "lm-eval"
    return [
        Question(one.text, one.choices, tuple(i not in one.true for i in range(len(one.choices))))
        for one in read(path, protocol=protocol)
    ]


def _halueval(record: Record) -> Question:
    answers = record.text("right_answer"), record.text("hallucinated_answer")
    return Question(record.text("question"), answers, (False, True), record.text("knowledge", default="") or None)


def _labelled(records: Sequence[Record]) -> list[Question]:
    """Lines about one prompt are one question."""
    found: dict[str, list[tuple[str, bool]]] = {}
    for record in records:
        said = record.text("answer"), truth(record, "false")
        found.setdefault(record.text("prompt", "question"), []).append(said)
    return [Question(prompt, tuple(a for a, _ in some), tuple(f for _, f in some)) for prompt, some in found.items()]


def truth(record: Record, name: str) -> bool:
    """A field that is true or false.

    Raises:
        ArgumentError: it is neither.
    """
    if not isinstance(value := record.fields.get(name), bool):
        raise ArgumentError(f"{record.place}: {name!r} is {shown(value)}; expected true or false.")
    return value


def _objects(record: Record) -> list[str]:
    value = record.fields.get("objects")
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ArgumentError(f"{record.place}: 'objects' is {shown(value)}; expected a list of names.")
    return value


def _caption(record: Record, folder: Path, known: Sequence[str]) -> Question:
    prompt = record.text("prompt", default=CAPTION_PROMPT)
    image = str(folder / record.text("image"))
    return Question(prompt, image=image, objects=frozenset(_objects(record)), known=tuple(known))


def mentions(text: str, known: Sequence[str]) -> list[tuple[str, Span]]:
    """The objects that a text names, in its order, each time that it does; of overlapping names the longest.

    A name is found as it is written, in any case, also with an s behind it.
    """
    if not known:
        return []
    names = "|".join(sorted(map(re.escape, known), key=len, reverse=True))
    found = re.finditer(rf"\b({names})s?\b", text, re.IGNORECASE)
    return [(match[1].lower(), Span(match.start(), match.end())) for match in found]
