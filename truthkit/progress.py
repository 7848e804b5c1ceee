"""How far long work is: a bar on a terminal; in a log a line every so often that says how long the rest will take."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Protocol, Self

from tqdm import tqdm

FIRST, EVERY = 15.0, 60.0
"""Seconds until a log's first line, and between lines: work that is done sooner says nothing."""


class Bar(Protocol):
    """What a bar and the lines of a log have in common, in the words of tqdm."""

    n: Any

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def update(self, n: float = 1) -> Any:
        """So many more are done."""

    def set_postfix_str(self, s: str = "") -> Any:
        """What else to say of the work, from now on."""

    def clear(self) -> Any:
        """Make room for a line of someone else's."""

    def close(self) -> Any:
        """Say how it ended."""


class Lines:
    """Progress in a log, on standard error.

    Args:
        total: how many there are.
        name: of the work.
        unit: what is counted, in the plural.
        initial: how many were done before; what is left is reckoned by those done since.
    """

    def __init__(self, total: int, name: str, unit: str, initial: int = 0):
        self.n, self._total, self._name, self._unit, self._initial = initial, total, name, unit, initial
        self._start = time.monotonic()
        self._due = self._start + FIRST
        self._remark, self._said = "", -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def update(self, n: float = 1) -> None:
        """So many more are done."""
        self.n += int(n)
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + EVERY
            self._say()

    def set_postfix_str(self, s: str = "") -> None:
        """What else to say of the work, from now on."""
        self._remark = s

    def clear(self) -> None:
        """Nothing is in the way."""

    def close(self) -> None:
        """A last line, where there was one before."""
        if self._said >= 0 and self.n > self._said:
            self._say()

    def _say(self) -> None:
        self._said = self.n
        took = time.monotonic() - self._start
        new, left = self.n - self._initial, self._total - self.n
        so_far = f"{self.n:,} of {self._total:,} {self._unit} ({self.n / max(self._total, 1):.0%}) in {_clock(took)}"
        ahead = f", about {_clock(took / new * left)} left" if left > 0 and new > 0 else ""
        remark = f"; {self._remark}" if self._remark else ""
        print(f"truthkit: {self._name}: {so_far}{ahead}{remark}", file=sys.stderr, flush=True)


def progress_bar(total: int, name: str, unit: str, *, initial: int = 0, shown: bool = True) -> Bar:
    """A bar where standard error is a terminal, the lines of a log elsewhere, and nothing unless `shown`.

    Args:
        total: how many there are.
        name: of the work.
        unit: what is counted, in the plural.
        initial: how many were done before.
        shown: whether to say anything.
    """
    if shown and not sys.stderr.isatty():
        return Lines(total, name, unit, initial)
    return tqdm(total=total, initial=initial, desc=name, unit=f" {unit}", disable=not shown)


def _clock(seconds: float) -> str:
    """As 2:05 or 1:02:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
