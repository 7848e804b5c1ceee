"""How far a run is: progress over the items of all its processes, and a word about those that are waited for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.records import Records
from truthkit.files.lock import holder
from truthkit.progress import progress_bar

_EVERY = 2.0
"""Seconds between looks at what the others have written."""

_FIRST_WORD, _WORDS = 10.0, 60.0
"""Seconds of waiting until the first word about it, and between words."""


class Progress:
    """That of process 0, which counts what all have done; of another process, silent.

    Args:
        name: of the task.
        shares: the items of each process.
        records: of this process.
        rank: of this process.
        said: what to say of the results so far, once there are any; "" for nothing.
        shown: whether this process says it.
    """

    def __init__(
        self,
        name: str,
        shares: Sequence[Sequence[Item]],
        records: Records,
        rank: int,
        said: Callable[[], str],
        *,
        shown: bool,
    ):
        self._shares, self._records, self._rank = shares, records, rank
        self._total = sum(map(len, shares))
        self._shown = shown
        self._bar = progress_bar(
            self._total, name, "items", initial=self._done(), said=lambda: said() if self._done() else "", shown=shown
        )
        self._looked = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.close()

    def done(self, _count: int) -> None:
        """Some items of this process were just done."""
        if self._shown:
            if len(self._shares) > 1 and time.monotonic() - self._looked > _EVERY:
                self._records.reread()
                self._looked = time.monotonic()
            self._show()

    def wait(self) -> None:
        """Until every other process has written its share; every minute it says on standard error for which."""
        start = time.monotonic()
        word = start + _FIRST_WORD
        while (left := self._left()) and left.keys() != {self._rank}:
            if time.monotonic() >= word:
                word = time.monotonic() + _WORDS
                self._bar.clear()
                for rank, count in left.items():
                    print(self._waiting(rank, count), file=sys.stderr, flush=True)
            time.sleep(0.5)
            self._records.reread()
            self._show()

    def _left(self) -> dict[int, int]:
        """How many items each process has yet to do, of those that have any."""
        counts = (sum(item.key not in self._records.done for item in share) for share in self._shares)
        return {rank: count for rank, count in enumerate(counts) if count}

    def _waiting(self, rank: int, count: int) -> str:
        who = holder(self._records.folder, rank, len(self._shares))
        state = f"({who})" if who else "which is not running: start it again, or stop this one and run it all again"
        return f"truthkit: still waiting for {count} item{'s' if count > 1 else ''} of process {rank} {state}"

    def _done(self) -> int:
        return self._total - sum(self._left().values())

    def _show(self) -> None:
        self._bar.update(self._done() - self._bar.n)
