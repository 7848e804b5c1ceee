"""How far long work is: a bar on a terminal; in a log a line every so often that says how long the rest will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from tqdm import tqdm

FIRST, EVERY = 15.0, 60.0
"""Seconds until a log's first line, and between lines: work that is done sooner says nothing."""

Said = Callable[[], str]
"""What else to say of the work so far; asked where it is shown."""


class Progress(Protocol):
    """What a bar and the lines of a log have in common."""

    @property
    def n(self) -> int:
        """How many are done."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def update(self, n: int = 1) -> None:
        """So many more are done."""

    def clear(self) -> None:
        """Make room for a line of someone else's."""

    def close(self) -> None:
        """Say how it ended."""


def progress_bar(
    total: int, name: str, unit: str, *, initial: int = 0, said: Said = lambda: "", shown: bool = True
) -> Progress:
    """A bar where standard error is a terminal, the lines of a log elsewhere, and nothing unless `shown`.

    Args:
        total: how many there are.
        name: of the work.
        unit: what is counted, in the plural.
        initial: how many were done before; how long the rest will take is reckoned by those done since.
        said: what else to say of the work so far.
        shown: whether to say anything.
    """
    if shown and not sys.stderr.isatty():
        return _Lines(total, name, unit, initial, said)
    return _Bar(total, name, unit, initial, said, shown=shown)


class _Bar:
    """tqdm's bar."""

    def __init__(self, total: int, name: str, unit: str, initial: int, said: Said, *, shown: bool):
        self._bar = tqdm(total=total, initial=initial, desc=name, unit=f" {unit}", disable=not shown)
        self._said, self._shown = said, shown

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def n(self) -> int:
        return int(self._bar.n)

    def update(self, n: int = 1) -> None:
        if self._shown:
            self._bar.set_postfix_str(self._said(), refresh=False)
        self._bar.update(n)

    def clear(self) -> None:
        self._bar.clear()

    def close(self) -> None:
        self._bar.close()


class _Lines:
    """A line on standard error, some time after the first."""

    def __init__(self, total: int, name: str, unit: str, initial: int, said: Said):
        self._total, self._name, self._unit, self._initial, self._said = total, name, unit, initial, said
        self._n = initial
        self._start = time.monotonic()
        self._due = self._start + FIRST
        self._last: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def n(self) -> int:
        return self._n

    def update(self, n: int = 1) -> None:
        self._n += n
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + EVERY
            self._say()

    def clear(self) -> None:
        """Nothing is in the way."""

    def close(self) -> None:
        """A last line, where there was one before."""
        if self._last is not None and self._n > self._last:
            self._say()

    def _say(self) -> None:
        self._last = self._n
        took = time.monotonic() - self._start
        new, left = self._n - self._initial, self._total - self._n
        so_far = f"{self._n:,} of {self._total:,} {self._unit} ({self._n / max(self._total, 1):.0%}) in {_clock(took)}"
        ahead = f", about {_clock(took / new * left)} left" if left > 0 and new > 0 else ""
        remark = f"; {said}" if (said := self._said()) else ""
        print(f"truthkit: {self._name}: {so_far}{ahead}{remark}", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    """As 2:05 or 1:02:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
