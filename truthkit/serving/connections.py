"""How uvicorn holds connections: so many at once, none that stands still.

A connection that has no whole request head after a while is closed, and so is one that does not take what is sent to
it. Where there are too many, the one that has been bringing its request for the longest makes room.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

MOST = 512
"""Connections at once, or half of what the operating system lets this process open."""


def connection_class(*, head: float = 15.0, write: float = 20.0, most: int = MOST) -> type[Any]:
    """The protocol for uvicorn's `http`, for one server.

    Args:
        head: seconds in which a request's head must have come.
        write: seconds for which a client may read nothing of what was sent.
        most: connections at once.
    """
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    awaited: dict[Any, None] = {}  # connections without a whole request, the oldest first
    most = min(most, _files() // 2)

    class Connection(H11Protocol):
        _head: asyncio.TimerHandle | None = None
        _write: asyncio.TimerHandle | None = None
        _over = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.set_write_buffer_limits(high=0)  # so that `pause_writing` tells of every unread byte
            self._watch()
            if len(self.connections) > most:
                next(iter(awaited))._refuse(
                    HTTPStatus.SERVICE_UNAVAILABLE, "there are too many connections; try again."
                )

        def connection_lost(self, exc: Exception | None) -> None:
            awaited.pop(self, None)
            for timer in (self._head, self._write):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if not self._over:
                super().data_received(data)
                self._watch()

        def handle_events(self) -> None:
            try:
                super().handle_events()
            except ValueError:  # of h11, for a number with thousands of digits
                self.send_400_response("")

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._write is None:
                self._await_reader()

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._write is not None:
                self._write.cancel()
                self._write = None

        def send_400_response(self, msg: str) -> None:
            self._refuse(HTTPStatus.BAD_REQUEST, "this is no HTTP request, or its head is too long.")

        @property
        def _kept_alive(self) -> bool:
            """Whether it rests after a response, for which uvicorn has a clock of its own."""
            return self.timeout_keep_alive_task is not None

        def _watch(self) -> None:
            """Note whether the request is here or awaited, and how long its head takes."""
            state = self.conn.their_state
            if state in (h11.IDLE, h11.SEND_BODY) and not self._over:
                awaited[self] = None
            else:
                awaited.pop(self, None)
            if state is not h11.IDLE or self._over:
                if self._head is not None:
                    self._head.cancel()
                    self._head = None
            elif self._head is None and not self._kept_alive:
                self._head = self.loop.call_later(head, self._too_late)

        def _await_reader(self) -> None:
            unsent = self.transport.get_write_buffer_size()
            self._write = self.loop.call_later(write, self._drop_unless_read, unsent)

        def _drop_unless_read(self, unsent: int) -> None:
            if self.transport.get_write_buffer_size() < unsent:
                self._await_reader()
            else:
                self.transport.abort()

        def _too_late(self) -> None:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request did not come to its end in time.")

        def _refuse(self, status: HTTPStatus, message: str) -> None:
            """An error by this connection's own hand, and its end once the client has had the time to read it."""
            self._over = True
            self._watch()
            if self.transport.is_closing():
                return
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not self._kept_alive:
                body = json.dumps({"error": message})
                self.transport.write(
                    f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
                )
            if self.cycle is not None:  # as if the client had left
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self.transport.write_eof()
            self.flow.resume_reading()
            self.loop.call_later(1.0, self.transport.abort)

    return Connection


def _files() -> int:
    """How many files, sockets among them, this process may have open."""
    try:
        import resource
    except ImportError:  # Windows
        return 2 * MOST
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2 * MOST if soft == resource.RLIM_INFINITY else soft
