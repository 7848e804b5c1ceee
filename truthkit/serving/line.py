"""A line before the model: one worker owns it, and whoever waits knows how many are before."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from truthkit.errors import TruthkitError
from truthkit.serving.outbox import Gone

_PAUSES = 5
"""So many pauses at most before jobs are done together."""


class Full(TruthkitError, RuntimeError):
    """Too much is waiting already."""


@dataclass(eq=False)
class Job:
    """One piece of work for the model.

    Attributes:
        work: does it, in the worker's thread; asks its argument after every step whether to stop.
        moved: told how many jobs are before this one, each time that changes while it waits.
        done: called when nothing more will come, however it ended.
        name: to cancel it by; "" for none.
        weight: bytes that it holds while it waits.
        kind: jobs of one kind can be done together; None is alone. See `Line.take`.
    """

    work: Callable[[Callable[[], bool]], Any]
    moved: Callable[[int], Any]
    done: Callable[[], Any]
    name: str = ""
    weight: int = 0
    kind: Any = None
    _cancelled: threading.Event = field(default_factory=threading.Event, init=False)
    _ahead: int = field(default=0, init=False)
    _until: float = field(default=float("inf"), init=False)

    @property
    def overdue(self) -> bool:
        """Whether its time with the model is over."""
        return time.monotonic() >= self._until

    def stop(self) -> bool:
        """Whether to stop: it was cancelled, or has had its time."""
        return self._cancelled.is_set() or self.overdue


class Line:
    """Jobs in the order in which they came, one at a time.

    Args:
        seconds: that a job may have the model.
        most: jobs that may wait.
        weight: bytes that may wait with them.
    """

    def __init__(self, seconds: float = 600.0, *, most: int = 100, weight: int = 64 * 2**20):
        self.seconds = seconds
        self._most, self._weight = most, weight
        self._change = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._beside: list[Job] = []
        self._closed = False
        self._worker = threading.Thread(target=self._serve, name="truthkit model", daemon=True)
        self._worker.start()

    def join(self, job: Job) -> None:
        """Stand at the end of the line.

        Raises:
            Full: too many jobs wait, or too many bytes with them, or no more are taken.
        """
        with self._change:
            waiting = len(self._waiting)
            if self._closed:
                raise Full("truthkit is stopping.")
            if waiting >= self._most:
                raise Full(f"{waiting} requests are waiting already; try again when some are answered.")
            if waiting and job.weight + sum(one.weight for one in self._waiting) > self._weight:
                raise Full("the images of the requests that wait fill the room for them; try again a little later.")
            self._waiting.append(job)
            self._tell()
            self._change.notify()

    def take(self, most: int, pause: float = 0.0) -> list[Job]:
        """Out of the line to the one that runs, whose work does them too: the first of its kind, at most so many.

        For the worker alone, while a job runs. Where there are fewer, it waits for as long as others keep coming.

        Args:
            most: jobs.
            pause: seconds without a new one after which it goes ahead with those that are there.
        """
        with self._change:
            assert self._running is not None
            kind = self._running.kind
            if kind is None:
                return []

            def alike() -> list[Job]:
                return [job for job in self._waiting if job.kind == kind][:most]

            until = time.monotonic() + _PAUSES * pause
            while not self._closed and len(alike()) < most and time.monotonic() < until:
                if not self._change.wait(pause):  # nobody has come
                    break
            taken = [] if self._closed else alike()
            for job in taken:
                self._waiting.remove(job)
                job._until = self._running._until
            self._beside += taken
            self._tell()
        return taken

    @property
    def lengths(self) -> tuple[int, int]:
        """How many jobs wait, and how many have the model."""
        with self._change:
            return len(self._waiting), int(self._running is not None) + len(self._beside)

    def leave(self, job: Job) -> None:
        """End `job`, wherever it is: out of the line, or after the step that it is at."""
        job._cancelled.set()
        with self._change:
            if job not in self._waiting:
                return
            self._waiting.remove(job)
            self._tell()
        job.done()

    def cancel(self, name: str) -> bool:
        """End the job of that name after its step; False if it is not the one that runs."""
        with self._change:
            job = self._running
            if job is None or not name or name != job.name:
                return False
            job._cancelled.set()
            return True

    def close(self, timeout: float = 10.0) -> None:
        """End all jobs, and wait until the worker has; no other begins."""
        with self._change:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
            for job in (self._running, *self._beside):
                if job is not None:
                    job._cancelled.set()
            self._change.notify()
        for job in waiting:
            job.done()
        self._worker.join(timeout)

    def _tell(self) -> None:
        """Tell everybody who waits how many are before, the one that runs included."""
        for ahead, job in enumerate(self._waiting, start=int(self._running is not None)):
            if ahead and ahead != job._ahead:
                job._ahead = ahead
                _quietly(job.moved, ahead)

    def _serve(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                job = self._running = self._waiting.popleft()
                job._until = time.monotonic() + self.seconds
                self._tell()
            try:
                _quietly(job.work, job.stop)
            finally:
                with self._change:
                    ended, self._running, self._beside = [job, *self._beside], None, []
                for job in ended:
                    job.done()
            del job, ended


def _quietly(call: Callable[..., Any], *args: Any) -> None:
    """Call without a way for its faults to end the line; they are shown on standard error."""
    try:
        call(*args)
    except Gone:
        pass
    except Exception as error:
        traceback.print_exception(error)
