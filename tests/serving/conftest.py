"""Applications of a few lines on a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra app is not installed")

from truthkit.serving import listening
from truthkit.serving.asgi import App
from truthkit.serving.connections import connection_class

Serve = Callable[..., int]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serves an application in a thread, with the connections' limits, and returns its port."""
    running = []

    def start(app: App, **limits: Any) -> int:
        monkeypatch.setattr(listening, "connection_class", lambda: connection_class(**limits))
        listener = listening.Listener("127.0.0.1", 0)
        thread = threading.Thread(target=listener.serve, args=(app, lambda: None))
        thread.start()
        running.append((listener, thread))
        return listener.port

    yield start
    for listener, thread in running:
        listener.stop()
        thread.join()


def talk(port: int, content: bytes, *, read: int = 2**16) -> bytes:
    """All that comes back for `content`, until the server ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(content)
        return until_end(client)


def until_end(client: socket.socket) -> bytes:
    received = b""
    while chunk := client.recv(2**16):
        received += chunk
    return received
