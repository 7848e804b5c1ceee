"""A run's folder: its settings, and one line per finished item, written so that a kill at any moment loses nothing.

`config.json` says what the run is; a folder is only ever gone on with under the same settings. Every process appends to
a file of its own, `records.jsonl` or `records-1.jsonl` ..., a whole line at a time, synced to the disk. A line that was
cut off is dropped at the next start, and its item is done again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.files.reading import read_json

CONFIG, SUMMARY, ITEMS = "config.json", "summary.json", "items.jsonl"


class Records:
    """The finished items of a run, by key.

    Args:
        folder: made where it is missing.
        config: what decides the results; JSON values.
        rank: of this process; 0 also writes `config.json`.

    Raises:
        ArgumentError: the folder holds a run with other settings; the message names them.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], rank: int = 0):
        self.folder = folder
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        _agree(folder / CONFIG, config, write=rank == 0)
        name = "records.jsonl" if rank == 0 else f"records-{rank}.jsonl"
        self._path = folder / name
        _drop_torn_line(self._path)
        self.done: dict[str, dict[str, Any]] = {}
        self.reread()

    def reread(self) -> None:
        """Take in what all processes have written; what is no record counts as not done."""
        for path in sorted(self.folder.glob("records*.jsonl")):
            for line in path.read_bytes().split(b"\n"):
                try:
                    record = json.loads(line)
                except ValueError:
                    continue  # another process is writing it, or it was damaged
                if isinstance(record, dict) and "key" in record:
                    self.done.setdefault(record["key"], record)

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Add finished items, each with its "key"; they are on the disk when this returns.

        Raises:
            NotAvailableError: they can't be written, the disk is full for one; those written before are not lost.
        """
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        self.done |= {record["key"]: record for record in records}


def write_atomically(path: Path, document: Any, *, lines: bool = False) -> None:
    """Write JSON, or with `lines` one line per entry, so that the file is the old or the new one, never half of it.

    Raises:
        NotAvailableError: it can't be written, the disk is full for one.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("w", encoding="utf-8") as file:
                if lines:
                    file.writelines(json.dumps(entry, ensure_ascii=False) + "\n" for entry in document)
                else:
                    json.dump(document, file, indent=2, ensure_ascii=False)
                    file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the file system as one that names `path` and the way out."""
    try:
        yield
    except OSError as error:
        raise NotAvailableError(
            f"{path} cannot be written: {error.strerror or error}. Once it can, run the same command again: what was "
            "finished before is kept."
        ) from error


def content_key(*parts: Any) -> str:
    """A key that depends on the content alone: the first 16 hexadecimal digits of a SHA-256 over the parts as JSON."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """Checksum of a file, or of all files of a folder with their names."""
    digest = hashlib.sha256()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _agree(path: Path, config: Mapping[str, Any], *, write: bool) -> None:
    wanted = json.loads(json.dumps(config, default=str))
    if not path.exists():
        if write:
            write_atomically(path, wanted)
        return
    found = read_json(path)
    if not isinstance(found, dict):
        raise ArgumentError(f"{path} holds no settings; use another folder, or delete this one.")
    other = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if other:
        differences = "; ".join(f"{name} was {found.get(name)!r} and is {wanted.get(name)!r}" for name in other)
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
