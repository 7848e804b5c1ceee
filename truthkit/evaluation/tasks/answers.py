"""Where a record of answers has its answer."""

from __future__ import annotations

from truthkit.files.reading import Record

FIELDS = ("answer", "text", "output", "prediction", "response")


def answer_of(record: Record, field: str = "", *others: str) -> str:
    """The text of `field`; without one, of the one of `others` and `FIELDS` that is there.

    Raises:
        ArgumentError: there is none, or several that differ, one of which may be the reference; or it is not text.
    """
    return record.text(field) if field else record.text(*others, *FIELDS, option="--answer-field")
