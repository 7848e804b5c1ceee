"""A run's folder: its settings, and one line per finished item, written so that a kill at any moment loses nothing.

`config.json` says what the run is; a folder is only ever gone on with under the same settings. Every process appends to
a file of its own, `records.jsonl` or `records-1.jsonl` ..., a whole line at a time, synced to the disk. A line that was
cut off is dropped at the next start, and its item is done again. Two processes must not share a file: hold
`truthkit.files.lock.only_writer` where that could be.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError
from truthkit.files.json_text import parse, shown
from truthkit.files.reading import read_json
from truthkit.files.shapes import ANYTHING, FINITE, TEXT, check
from truthkit.files.writing import clear_parts, strict, write_atomically, writing

CONFIG, SUMMARY, ITEMS = "config.json", "summary.json", "items.jsonl"


class Records:
    """The finished items of a run, by key.

    Args:
        folder: made where it is missing.
        config: what decides the results; JSON values.
        rank: of this process; 0 also writes `config.json`.
        writes: whether finished items go to the disk, and not only into `done`.

    Attributes:
        done: the finished items.
        found: whether some were there at the start.

    Raises:
        ArgumentError: the folder holds a run with other settings; the message names them.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], rank: int = 0, *, writes: bool = True):
        self.folder, self.writes = folder, writes
        name = "records.jsonl" if rank == 0 else f"records-{rank}.jsonl"
        self._path = folder / name
        if writes:
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                if rank == 0:  # the one that writes other files than its own
                    clear_parts(*(folder / name for name in (CONFIG, SUMMARY, ITEMS)))
            _agree(folder / CONFIG, config, write=rank == 0)
            _drop_torn_line(self._path)
        self.done: dict[str, dict[str, Any]] = {}
        self._known: dict[Path, int] = {}
        self.reread()
        self.found = bool(self.done)

    def reread(self) -> None:
        """Take in what all processes have written since; what is no record counts as not done."""
        for path in sorted(self.folder.glob("records*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._known.get(path, 0))
                content = file.read()
            whole = content[: content.rfind(b"\n") + 1]  # another process may be writing the next line
            self._known[path] = self._known.get(path, 0) + len(whole)
            for line in whole.split(b"\n"):
                if (record := _record(line)) is not None:
                    self.done.setdefault(record["key"], record)

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Add finished items, each with its "key"; they are on the disk when this returns.

        A number that JSON has not, minus infinity for one, becomes None.

        Raises:
            NotAvailableError: they can't be written, the disk is full for one; those written before are not lost.
        """
        records = [strict(record) for record in records]
        if self.writes:
            lines = "".join(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)
            with writing(self._path), self._path.open("a", encoding="utf-8") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        self.done |= {record["key"]: record for record in records}


def _record(line: bytes) -> dict[str, Any] | None:
    """The record in a line; None where it was damaged."""
    with suppress(ArgumentError, UnicodeDecodeError):
        record = parse(line.decode())
        check(record, {"key!": TEXT, "output": ANYTHING, "prompt": TEXT, "seconds": FINITE}, "the record")
        return dict(record)
    return None


def _agree(path: Path, config: Mapping[str, Any], *, write: bool) -> None:
    wanted = json.loads(json.dumps(strict(config), default=str, allow_nan=False))
    if not path.exists():
        if write:
            write_atomically(path, wanted)
        return
    found = read_json(path)
    if not isinstance(found, dict):
        raise ArgumentError(f"{path} holds no settings; use another folder, or delete this one.")
    other = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if other:
        differences = "; ".join(
            f"{name} was {shown(found.get(name))} and is {shown(wanted.get(name))}" for name in other
        )
        raise ArgumentError(
            f"{path.parent} holds a run with other settings: {differences}. Use another folder, or delete this one."
        )


def _drop_torn_line(path: Path) -> None:
    """Cut a file back to its last whole line."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
