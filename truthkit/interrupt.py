"""SIGTERM as an exception, as Ctrl-C is one, so that what runs can put things in order and end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """The process was asked to end, by SIGTERM: a scheduler's time is up, for one."""


@contextmanager
def termination_raises() -> Iterator[None]:
    """Inside the block SIGTERM raises `Terminated` where it has ended the process before.

    In a thread that cannot handle signals, and where someone handles it already, nothing changes.
    """
    free = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not free:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated
