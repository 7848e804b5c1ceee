"""Answers and scores that others wrote: whose they are, and where a record has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from truthkit.errors import ArgumentError
from truthkit.files.json_text import shown
from truthkit.files.reading import Record, read_records

FIELDS = ("answer", "text", "output", "prediction", "response")


def answer_of(record: Record, field: str = "", *others: str) -> str:
    """The text of `field`; without one, of the one of `others` and `FIELDS` that is there.

    Raises:
        ArgumentError: there is none, or several that differ, one of which may be the reference; or it is not text.
    """
    return record.text(field) if field else record.text(*others, *FIELDS, option="--answer-field")


def answers_in_order(
    path: Path, names: Sequence[str], name_of: Callable[[Record], str], text_of: Callable[[Record], str]
) -> list[str]:
    """One text for each of `names`, by what the records of a file name; in order, where none has a question_id.

    Raises:
        ArgumentError: an answer to no question, two to one, or none to some.
    """
    records = read_records(path)
    texts = list(map(text_of, records))
    if not any("question_id" in record.fields for record in records):
        if len(records) != len(names):
            raise ArgumentError(
                f"{path.name} has {len(records)} answers for {len(names)} questions, and no 'question_id' to tell "
                "which is which."
            )
        return texts
    known, found = set(names), dict[str, str]()
    for record, text in zip(records, texts, strict=True):
        if (name := name_of(record)) not in known:
            raise ArgumentError(f"{record.place}: {name} is none of the {len(names)} questions.")
        if name in found:
            raise ArgumentError(f"{record.place}: {name} was answered before.")
        found[name] = text
    if missing := [name for name in names if name not in found]:
        raise ArgumentError(f"{len(missing)} of {len(names)} questions have no answer; the first is {missing[0]}.")
    return [found[name] for name in names]


def log_probs_of(record: Record, choices: Sequence[str]) -> list[float]:
    """The log-probability of every choice, from an object by their texts or an array in their order; null is -inf.

    Raises:
        ArgumentError: one is missing, or is no number.
    """
    values = record.fields.get("log_probs")
    if isinstance(values, dict):
        if missing := [choice for choice in choices if choice not in values]:
            raise ArgumentError(f"{record.place}: no log-probability of the choice {missing[0]!r}.")
        values = [values[choice] for choice in choices]
    if not isinstance(values, list) or len(values) != len(choices):
        raise ArgumentError(
            f"{record.place}: 'log_probs' is no object from choice to number, and no {len(choices)} numbers."
        )
    if bad := [one for one in values if one is not None and (type(one) not in (int, float) or math.isnan(one))]:
        raise ArgumentError(f"{record.place}: {shown(bad[0])} among the log_probs is no number.")
    return [-math.inf if value is None else float(value) for value in values]


def in_order_of(
    asked: Sequence[str], records: Sequence[Record], field: str, of: Callable[[Record], str] | None = None
) -> list[Record]:
    """The record of each of these questions or prompts, which may come twice.

    Args:
        asked: their texts.
        records: as many, each with that text in `field`; or none has the field, and they are in the same order.
        field: of the records.
        of: the text of a record, where that is more than the field.

    Raises:
        ArgumentError: there is no record for one, or one too many.
    """
    if not any(field in record.fields for record in records):
        if len(records) != len(asked):
            raise ArgumentError(f"{len(records)} answers for {len(asked)} questions, and no {field!r} to tell them by.")
        return list(records)
    waiting: dict[str, list[Record]] = {}
    for record in reversed(records):
        waiting.setdefault((of(record) if of else record.text(field)).strip(), []).append(record)
    found = [left.pop() if (left := waiting.get(text.strip())) else None for text in asked]
    if missing := [text for text, record in zip(asked, found, strict=True) if record is None]:
        raise ArgumentError(f"{len(missing)} of {len(asked)} questions have no answer; the first is {missing[0]!r}.")
    if over := [record for left in waiting.values() for record in left]:
        first = min(over, key=records.index)
        text = (of(first) if of else first.text(field)).strip()
        raise ArgumentError(f"{first.place}: {text!r} was not asked, or was answered already.")
    return [record for record in found if record is not None]
