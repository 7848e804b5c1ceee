"""Writing so that nothing is lost: atomically, with errors that name the way out; checksums of content."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from truthkit.errors import NotAvailableError, TruthkitError


def write_atomically(path: Path, document: Any, *, lines: bool = False) -> None:
    """Write JSON, or with `lines` one line per entry, so that the file is the old or the new one, never half of it.

    A number that JSON has not, NaN or an infinity, becomes null.

    Raises:
        NotAvailableError: it can't be written, the disk is full for one.
    """
    document = strict(document)
    with writing(path), replacing(path) as part, part.open("w", encoding="utf-8") as file:
        if lines:
            file.writelines(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n" for entry in document)
        else:
            json.dump(document, file, indent=2, ensure_ascii=False, allow_nan=False)
            file.write("\n")


def strict(value: Any) -> Any:
    """A copy in which None stands for every number that JSON has not: NaN and the infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: strict(part) for key, part in value.items()}
    return [strict(part) for part in value] if isinstance(value, list | tuple) else value


def json_text(document: Any) -> str:
    """JSON over several lines, for people and programs; null for numbers that it has not."""
    return json.dumps(strict(document), indent=2, allow_nan=False)


def clear_parts(*paths: Path) -> None:
    """Remove what writers of `paths` that were killed have left beside them; none may be writing them now."""
    for path in paths:
        left = re.compile(rf"\.{re.escape(path.stem)}\.\d+{re.escape(path.suffix)}")
        for part in path.parent.iterdir():
            if left.fullmatch(part.name):
                part.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The path of a file to write beside `path`: it takes its place at the end of the block, whole and on the disk.

    After an error `path` is what it was, and nothing is left beside it. The folder is made where it is missing.
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the file system, also those that safetensors tells of, as one that names `path` and the way out."""
    try:
        yield
    except TruthkitError:
        raise
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise NotAvailableError(
            f"{path} cannot be written: {why}. Once it can, run the same command again: what was finished is kept."
        ) from error


def content_key(*parts: Any) -> str:
    """A key that depends on the content alone: the first 16 hexadecimal digits of a SHA-256 over the parts as JSON."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Checksum of a file, or of all files of a folder with their names; hexadecimal."""
    path = Path(path)
    digest = hashlib.sha256()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
