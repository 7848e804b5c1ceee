"""Whose a `with` block on a model is: the thread's that entered it, and those that this thread starts inside.

A model is shared by all threads, and so are hooks and methods put on it. Here they act in the threads of their block
only; elsewhere the model is as it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch

from truthkit.errors import AttachError

_PATIENCE = 10.0
"""For how many seconds a block that is left waits for a call in another thread to notice it."""

_LOCK = threading.RLock()
_OPEN: list[Block] = []
_start = threading.Thread.start


def _start_noted(thread: threading.Thread) -> None:
    """`Thread.start` while blocks are open: Python does not say which thread started which."""
    with _LOCK:
        for block in _OPEN:
            if block.here():
                block.helpers.add(thread)
    _start(thread)


class Block:
    """One stay in a `with` block on a model.

    Args:
        name: what the block is, in messages.

    Attributes:
        helpers: the threads that were started inside by those it belongs to.
    """

    def __init__(self, name: str):
        self.name = name
        self.helpers: WeakSet[threading.Thread] = WeakSet()
        self._owner = threading.current_thread()
        self._caller: threading.Thread | None = None
        self._left = False
        self._ended = threading.Condition(_LOCK)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Note the threads that are started in this block."""
        with _LOCK:
            _OPEN.append(self)
            if len(_OPEN) == 1:
                globals()["_start"], threading.Thread.start = threading.Thread.start, _start_noted  # type: ignore
        try:
            yield
        finally:
            with _LOCK:
                _OPEN.remove(self)
                if not _OPEN and threading.Thread.start is _start_noted:
                    threading.Thread.start = _start  # type: ignore

    def here(self) -> bool:
        """Whether the current thread is one of this block's."""
        thread = threading.current_thread()
        return thread is self._owner or thread in self.helpers

    def only_here(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """A hook that acts in the threads of this block; code that is compiled inside it acts wherever it runs."""

        def own(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling() or threading.current_thread() is self._owner or self.here():
                return hook(*args, **kwargs)
            return None

        return own

    def check(self) -> None:
        """Raises:
        AttachError: the block has been left, or a call of `generate` runs in another of its threads.
        """
        self._check_not_left()
        if (caller := self._caller) is not None and caller is not threading.current_thread():
            raise AttachError(
                f"the model runs in thread {threading.current_thread().name!r} while a generate under {self.name} runs "
                f"in thread {caller.name!r}; a block serves one call at a time. Join that thread first, or give each "
                "thread a block on a model of its own."
            )

    def _check_not_left(self, error: Exception | None = None) -> None:
        if self._left:
            raise AttachError(
                f"the `with {self.name}(...)` block was left while a generate that began in it still ran in thread "
                f"{threading.current_thread().name!r}; its tokens would be half with and half without it. Join the "
                "thread inside the block."
            ) from error

    @contextmanager
    def calling(self) -> Iterator[None]:
        """A call of `generate` in this thread.

        Raises:
            AttachError: as in `check`, at the beginning or, if the block is left meanwhile, at the end.
        """
        with _LOCK:
            self.check()
            outer, self._caller = self._caller, threading.current_thread()
        try:
            yield
            self._check_not_left()
        except AttachError:
            raise
        except Exception as error:
            self._check_not_left(error)
            raise
        finally:
            with _LOCK:
                self._caller = outer
                self._ended.notify_all()

    def leave(self) -> threading.Thread | None:
        """No call may begin or go on from now; the thread of one that was running, and that has ended if it could."""
        with _LOCK:
            self._left, caller = True, self._caller
            if caller is not None and caller is not threading.current_thread():
                self._ended.wait_for(lambda: self._caller is None, timeout=_PATIENCE)
        return caller

    def refuse_left(self, caller: threading.Thread | None, exception: tuple[object, ...]) -> None:
        """Raises:
        AttachError: `caller` was still running as the block was left, by no exception.
        """
        if caller is not None and not any(exception):
            raise AttachError(
                f"the `with {self.name}(...)` block was left while a generate under it ran in thread {caller.name!r}, "
                "which was stopped; join the thread inside the block."
            )
