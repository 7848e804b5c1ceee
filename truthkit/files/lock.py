"""One writer at a time in a folder: locks that the system lets go of when their holder dies, however it dies."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from truthkit.errors import NotAvailableError
from truthkit.files.writing import writing

LOCKS = ".locks"
"""The folder of them, in the folder that they are of; it may be deleted when nothing runs."""

_PATIENCE = 0.5
"""Seconds to try: `holder` takes a lock for a moment."""


@contextmanager
def only_writer(folder: Path, rank: int = 0, world: int = 1) -> Iterator[None]:
    """Inside the block only this process is writer `rank` of `world` in `folder`, and no other set of writers is there.

    The folder is made where it is missing.

    Raises:
        NotAvailableError: another process is; the message says which. Or the folder cannot be written.
    """
    locks = folder / LOCKS
    with writing(folder):
        own = FileLock(_lock(locks, rank, world))
        for last in (False, False, True):
            try:
                locks.mkdir(parents=True, exist_ok=True)
                own.acquire(timeout=_PATIENCE, poll_interval=0.05)
                break
            except FileNotFoundError:  # its writer has ended, and is just clearing the folder away
                if last:
                    raise
            except Timeout:
                if last or locks.exists():
                    raise NotAvailableError(_in_use(folder, rank, world)) from None
    try:
        for path in sorted(locks.glob("*.lock")):
            other, of = map(int, path.stem.split("-of-"))
            if of != world and holder(folder, other, of) is not None:
                raise NotAvailableError(_in_use(folder, other, of))
        about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with suppress(OSError):  # a full disk: it is only for messages
            _about(locks, rank, world).write_text(json.dumps(about), encoding="utf-8")
        yield
    finally:
        _about(locks, rank, world).unlink(missing_ok=True)
        own.release()


@contextmanager
def turn(folder: Path, name: str = "turn") -> Iterator[None]:
    """Inside the block no other process is in such a block of the same folder and name; others wait for their turn."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{name}.lock")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def holder(folder: Path, rank: int = 0, world: int = 1) -> str | None:
    """Which process is writer `rank` of `world` in `folder` now, as "process 12 on host, since ..."; None for none."""
    locks = folder / LOCKS
    if not _lock(locks, rank, world).exists():
        return None
    try:
        with FileLock(_lock(locks, rank, world), timeout=0):
            return None
    except Timeout:
        pass
    try:
        about = json.loads(_about(locks, rank, world).read_text(encoding="utf-8"))
        return f"process {about['pid']} on {about['host']}, since {about['since']}"
    except (OSError, ValueError, LookupError, TypeError):  # it has only just begun, or its disk is full
        return "another process"


def _in_use(folder: Path, rank: int, world: int) -> str:
    who = holder(folder, rank, world) or "another process that has just ended"
    return f"{folder} is being written by {who}. Wait until it has ended, stop it, or use another folder."


def _lock(locks: Path, rank: int, world: int) -> Path:
    return locks / f"{rank}-of-{world}.lock"


def _about(locks: Path, rank: int, world: int) -> Path:
    return locks / f"{rank}-of-{world}.json"
