"""Records and texts as people have them: JSON, JSON lines, CSV, TSV, .xlsx; the place of each is for messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.files import tables
from truthkit.files.json_text import NotJson, parse, shown, stream

_STRUCTURED = (".json", ".jsonl", ".ndjson", *tables.ENDINGS)


class Record(NamedTuple):
    """One record of a file: where it stands, as messages name it, and its fields."""

    place: str
    fields: dict[str, Any]

    def field(self, *names: str, option: str = "") -> str | None:
        """Which of these fields is there; None for none. Empty ones give way to others.

        Raises:
            ArgumentError: several are there and differ; `option` is the one on the command line that chooses.
        """
        there = [name for name in names if name in self.fields]
        given = [name for name in there if self.fields[name] not in (None, "")] or there
        first = self.fields[given[0]] if given else None
        if other := [name for name in given if self.fields[name] != first]:
            choose = f"name the one that is meant with {option}" if option else "keep the one that is meant"
            raise ArgumentError(
                f"{self.place}: {given[0]!r} is {shown(first)} and {other[0]!r} is {shown(self.fields[other[0]])}; "
                f"{choose}."
            )
        return given[0] if given else None

    def text(self, *names: str, default: str | None = None, option: str = "") -> str:
        """The one of these fields that is there, as text.

        Raises:
            ArgumentError: none is there and there is no default, several are (`option` chooses), or it is not text.
        """
        if (name := self.field(*names, option=option)) is not None:
            if not isinstance(value := self.fields[name], str):
                raise ArgumentError(f"{self.place}: {name!r} is {shown(value)}; expected text.")
            return value
        if default is not None:
            return default
        wanted = " or ".join(map(repr, names))
        listed = ", ".join(name[:40] for name in list(self.fields)[:20])
        raise ArgumentError(f"{self.place}: no {wanted}; its fields are {listed or 'none'}.")

    def name(self, *names: str) -> str | None:
        """The first of these fields that is there, a text or an integer, as text; None for none."""
        value = next((self.fields[name] for name in names if self.fields.get(name) is not None), None)
        if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
            raise ArgumentError(f"{self.place}: {names[0]!r} is {shown(value)}; expected a text or a number.")
        return None if value is None else str(value)


class Entry(NamedTuple):
    """What stands at one place of a file: a value, or a `NotJson` that says why there is none."""

    place: str
    value: Any


def read_text(path: Path, *, strict: bool = True) -> str:
    """A file's text, in UTF-8, or in UTF-16 with a byte order mark; without the mark, line ends as they are.

    Without `strict`, bytes that are not UTF-8 become half surrogate pairs.

    Raises:
        NotAvailableError: no such file, or one that cannot be read.
        ArgumentError: it is a folder or a device, or is not UTF-8.
    """
    if path.is_dir():
        raise ArgumentError(f"{path} is a folder; expected a file.")
    try:
        if path.is_char_device() or path.is_block_device():
            raise ArgumentError(f"{path} is a device; expected a file.")
        data = path.read_bytes()
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        return data.decode("utf-16") if wide else data.decode("utf-8-sig", "strict" if strict else "surrogateescape")
    except UnicodeDecodeError as error:
        raise ArgumentError(
            f"{path} is not UTF-8 text (byte {error.start}); expected JSON, JSON lines, CSV, TSV or text."
        ) from None
    except (OSError, ValueError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise NotAvailableError(f"{path} cannot be read: {getattr(error, 'strerror', '') or error}.") from None


def read_json(path: Path) -> Any:
    """One JSON value; errors as of `read_text`, and an `ArgumentError` with the line of what is not JSON."""
    text = read_text(path)
    try:
        return parse(text)
    except NotJson as error:
        raise ArgumentError(f"{path}, line {1 + text.count(chr(10), 0, error.at)}: {error}.") from None


def read_entries(path: Path) -> Iterator[Entry]:
    """What a file holds: rows of a table, elements of one array, or values of JSON lines.

    Raises:
        NotAvailableError, ArgumentError, MissingExtraError: the file or table cannot be read as a whole.
    """
    ending = path.suffix.lower()
    if ending in tables.ENDINGS:
        excel = ending == ".xlsx"
        found = tables.sheet(path) if excel else tables.rows(path, read_text(path))
        yield from (Entry(f"{path.name}, {'row' if excel else 'line'} {number}", row) for number, row in found)
        return
    values = list(stream(_plain(read_text(path, strict=False))))
    if len(values) == 1 and isinstance(array := values[0][1], list):
        yield from (Entry(f"{path.name}, record {number}", value) for number, value in enumerate(array, 1))
    else:
        yield from (Entry(f"{path.name}, line {number}", value) for number, value in values)


def read_records(path: Path) -> list[Record]:
    """The objects of a file: JSON lines, an array, one object; rows of .csv, .tsv or .xlsx with a head.

    Raises:
        NotAvailableError, ArgumentError, MissingExtraError: as `read_entries`; also something that is no JSON object,
            or no records at all.
    """
    records = []
    for place, value in read_entries(path):
        if isinstance(value, NotJson):
            raise ArgumentError(f"{place}: {value}.")
        if not isinstance(value, dict):
            raise ArgumentError(f"{place}: expected a JSON object, found {shown(value)}.")
        records.append(Record(place, value))
    if not records:
        raise ArgumentError(f"{path} has no records.")
    return records


def read_texts(path: Path, *fields: str) -> list[str]:
    """Texts: the lines of a text file that are not blank; of JSON and tables the strings, or the one of these fields.

    Raises:
        NotAvailableError, ArgumentError, MissingExtraError: as `read_records`; also where there are no texts.
    """
    if path.suffix.lower() not in _STRUCTURED:
        texts = [line for line in _plain(read_text(path)).split("\n") if line.strip()]
    else:
        texts = []
        for place, value in read_entries(path):
            if isinstance(value, NotJson):
                raise ArgumentError(f"{place}: {value}.")
            if not isinstance(value, str | dict):
                raise ArgumentError(f"{place}: expected a text, or an object with one, found {shown(value)}.")
            texts.append(value if isinstance(value, str) else Record(place, value).text(*fields))
    if not texts:
        raise ArgumentError(f"{path} holds no texts; write one per line.")
    return texts


def _plain(text: str) -> str:
    """With line feeds alone between lines; what else Unicode breaks lines at stays a part of them."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
