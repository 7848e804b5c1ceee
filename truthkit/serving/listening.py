"""A socket that is taken at once, and what is served on it later."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from truthkit.errors import ArgumentError, MissingExtraError
from truthkit.serving.asgi import App, Receive, Scope, Send
from truthkit.serving.connections import connection_class

_UNREAD = 2**16  # bytes per connection that the system keeps for a client; of one that reads no more, few pile up


class Listener:
    """Listens on `host` and `port`, 0 for a free one.

    Connections wait from the start on; they are answered once `serve` runs.

    Args:
        host: an address of this machine.
        port: its number.
        extra: of truthkit, which brings starlette and uvicorn.

    Attributes:
        port: the one that was taken.

    Raises:
        MissingExtraError: starlette or uvicorn is not installed.
        ArgumentError: there is no such address on this machine, or the port is in use.
    """

    def __init__(self, host: str, port: int, extra: str = "app"):
        try:
            import starlette  # noqa: F401
            import uvicorn
        except ImportError:
            raise MissingExtraError(f"serving needs starlette and uvicorn: pip install 'truthkit[{extra}]'.") from None
        self.host = host
        self._socket = _taken(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._app: App | None = None

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert self._app is not None
            await self._app(scope, receive, send)

        config = uvicorn.Config(
            app,
            interface="asgi3",
            http=connection_class(),
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # requests are no news, and errors are told to who asked
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=256,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=5,
        )
        self._server = uvicorn.Server(config)

    @property
    def origin(self) -> str:
        """The address to open, without a path."""
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        shown = f"[{shown}]" if ":" in shown else shown
        return f"http://{shown}:{self.port}"

    def serve(self, app: App, stopping: Callable[[], None]) -> None:
        """Serve `app` until `stop` or Ctrl-C, which is raised here again.

        Args:
            app: what answers.
            stopping: called once no more connections are taken, to end what still answers.
        """
        self._app = app
        shutdown = self._server.shutdown

        async def shut_down(sockets: Any = None) -> None:
            await asyncio.to_thread(stopping)
            await shutdown(sockets)

        self._server.shutdown = shut_down  # type: ignore[method-assign]
        try:
            self._server.run([self._socket])
        finally:
            stopping()
            self.close()

    def stop(self) -> None:
        """From any thread: end `serve`."""
        self._server.should_exit = True

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


def _taken(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ArgumentError(f"port is {port}; expected 0 to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD)
            taken.bind(address)
            taken.listen(256)
        except BaseException:
            taken.close()
            raise
        return taken
    except OSError as error:
        way_out = " Port 0 takes a free one." if error.errno in (errno.EADDRINUSE, errno.EACCES) else ""
        reason = error.strerror or error
        raise ArgumentError(f"truthkit cannot be served at {host}, port {port}: {reason}.{way_out}") from None
