"""Reading answer and question files: JSON or JSON lines, with the place of every record for the message of an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from truthkit.errors import ArgumentError, NotAvailableError


class Record(NamedTuple):
    """One record of a file: where it stands, as messages name it, and its fields."""

    place: str
    fields: dict[str, Any]

    def text(self, *names: str, default: str | None = None) -> str:
        """The first of these fields that is there, as text.

        Raises:
            ArgumentError: none is there and there is no default, or it is not text.
        """
        for name in names:
            if name in self.fields:
                value = self.fields[name]
                if not isinstance(value, str):
                    raise ArgumentError(f"{self.place}: {name!r} is {value!r}; expected text.")
                return value
        if default is not None:
            return default
        wanted = " or ".join(repr(name) for name in names)
        raise ArgumentError(f"{self.place}: no {wanted}; its fields are {', '.join(self.fields) or 'none'}.")

    def number(self, *names: str) -> int:
        """The first of these fields that is there, as an integer; digits in text are read too."""
        for name in names:
            if name in self.fields:
                try:
                    if isinstance(self.fields[name], int | str):
                        return int(self.fields[name])
                except ValueError:
                    pass
                raise ArgumentError(f"{self.place}: {name!r} is {self.fields[name]!r}; expected an integer.")
        wanted = " or ".join(repr(name) for name in names)
        raise ArgumentError(f"{self.place}: no {wanted}; its fields are {', '.join(self.fields) or 'none'}.")


def read_text(path: Path) -> str:
    """A UTF-8 file's text, without a byte order mark; line ends as they are.

    Raises:
        NotAvailableError: no such file, or one that cannot be read.
        ArgumentError: it is a folder, or not UTF-8.
    """
    if path.is_dir():
        raise ArgumentError(f"{path} is a folder; expected a file.")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path} is not UTF-8 text (byte {error.start}).") from None
    except OSError as error:
        raise NotAvailableError(f"{path} cannot be read: {error.strerror or error}.") from None


def read_json(path: Path) -> Any:
    """One JSON value; errors as of `read_text`, and an `ArgumentError` with the line of what is not JSON."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ArgumentError(f"{path}, line {error.lineno}: not JSON: {error.msg}.") from None


def read_records(path: Path) -> list[Record]:
    """The objects of a JSON array or of JSON lines, told apart by the first character; blank lines do not count.

    Raises:
        NotAvailableError, ArgumentError: as `read_text`; also a line that is no JSON object, or no records at all.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        values = read_json(path)
        records = [Record(f"{path.name}, record {number}", value) for number, value in enumerate(values, 1)]
    else:
        records = []
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            place = f"{path.name}, line {number}"
            try:
                records.append(Record(place, json.loads(line)))
            except json.JSONDecodeError as error:
                raise ArgumentError(f"{place}: not JSON: {error.msg} (column {error.colno}).") from None
    for record in records:
        if not isinstance(record.fields, dict):
            raise ArgumentError(f"{record.place}: expected a JSON object, found {str(record.fields)[:40]!r}.")
    if not records:
        raise ArgumentError(f"{path} has no records.")
    return records
