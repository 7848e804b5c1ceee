"""From the thread that works to the coroutine that sends: without the one ever waiting for the other's client."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator


class Gone(Exception):
    """Nobody listens any more."""


class Outbox:
    """Bytes on their way to one client; made in the event loop that sends them.

    Args:
        most: bytes that may wait; a client that lets more pile up is taken for gone.
    """

    def __init__(self, most: int = 32 * 2**20):
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._closed = False
        self._gone = False

    def put(self, content: bytes) -> None:
        """From any thread; never waits.

        Raises:
            Gone: the client has left, or does not read.
        """
        with self._lock:
            if self._size > self._most:
                self._gone = True
                self._waiting.clear()
            if not self._gone:
                self._waiting.append(content)
                self._size += len(content)
        self._wake()
        if self._gone:
            raise Gone

    def close(self) -> None:
        """From any thread: nothing more will come."""
        self._closed = True
        self._wake()

    def leave(self) -> None:
        """From any thread: the client has gone."""
        with self._lock:
            self._gone = True
            self._waiting.clear()
        self._wake()

    async def contents(self) -> AsyncIterator[bytes]:
        """What was put, as it comes, until the outbox is closed and empty or the client gone."""
        while True:
            self._news.clear()
            last = self._closed
            with self._lock:
                content = b"".join(self._waiting)
                self._waiting.clear()
                self._size = 0
            if content:
                yield content
            elif last or self._gone:
                return
            else:
                await self._news.wait()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:  # the loop has ended, and with it every client
            self._gone = True
