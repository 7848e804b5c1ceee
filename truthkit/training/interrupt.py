"""Ctrl-C and SIGTERM in a training: the step that runs is finished and written down first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from truthkit.interrupt import Terminated

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


Request = type[KeyboardInterrupt]
"""What to raise: `Terminated` for SIGTERM."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], Request | None]]:
    """Inside the block, a function that gives what to stop with, or None; the second signal acts at once, as before.

    In a thread that cannot handle signals nothing changes, and the function gives None.
    """
    asked: list[Request] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def note(number: int, _frame: FrameType | None) -> None:
        asked.append(Terminated if number == signal.SIGTERM else KeyboardInterrupt)
        signal.signal(number, before[signal.Signals(number)])

    try:
        for number in _SIGNALS:
            signal.signal(number, note)
        yield lambda: asked[0] if asked else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
