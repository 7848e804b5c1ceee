"""Files and folders of the command line, looked at before anything heavy is imported."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from truthkit.errors import ArgumentError, NotAvailableError


def readable(path: str | Path, option: str) -> Path:
    """A file that is to be read.

    Raises:
        NotAvailableError: it is not there, or may not be read.
        ArgumentError: it is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise ArgumentError(f"{option} is {str(path)!r}, which is a folder; expected a file.")
    if not path.exists():
        raise NotAvailableError(f"{option} is {str(path)!r}: there is no such file.")
    if not os.access(path, os.R_OK):
        raise NotAvailableError(f"{option} is {str(path)!r}, which may not be read.")
    return path


def existing(path: str | Path, option: str) -> Path:
    """A file or folder that is to be read.

    Raises:
        NotAvailableError: it is not there.
    """
    if not Path(path).exists():
        raise NotAvailableError(f"{option} is {str(path)!r}: there is no such file or folder.")
    return Path(path)


def writable(path: str | Path, option: str, endings: Iterable[str] = ()) -> Path:
    """A file or folder that is to be written, in a folder that exists.

    Raises:
        ArgumentError: the folder does not exist or may not be written in, or the name has none of the `endings`, which
            are those of files.
    """
    path, endings = Path(path), tuple(endings)
    folder = path.absolute().parent
    expected = f"{', '.join(endings[:-1])} or {endings[-1]} " if len(endings) > 1 else f"a {''.join(endings)} file "
    if (endings and path.suffix.lower() not in endings) or not folder.is_dir():
        what = expected if endings else "a name "
        raise ArgumentError(f"{option} is {str(path)!r}; expected {what}in a folder that exists.")
    if endings and path.is_dir():
        raise ArgumentError(f"{option} is {str(path)!r}, which is a folder; expected a file.")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ArgumentError(f"{option} is {str(path)!r}, which may not be written; name another place.")
    return path


def writable_folder(path: Path, option: str) -> Path:
    """A folder that files are to be written to, there or to be made.

    Raises:
        ArgumentError: there is a file where the folder, or one above it, should be; or it may not be written.
    """
    there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ArgumentError(f"{option} is {str(path)!r}, but {str(there)!r} is a file; name another place.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ArgumentError(f"{option} is {str(path)!r}, and {str(there)!r} may not be written; name another place.")
    return path
