"""Connections that stand still, and too many of them."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import ExitStack

import pytest

from tests.serving.conftest import Serve, talk, until_end
from truthkit.serving.asgi import Receive, Scope, Send

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def hello(_scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def receive_hello(client: socket.socket) -> None:
    received = b""
    while not received.endswith(b"hello"):
        received += client.recv(2**16)


def test_a_head_that_does_not_come_ends_the_connection(serve: Serve) -> None:
    port = serve(hello, head=0.2)
    with connect(port) as client:
        assert until_end(client).startswith(b"HTTP/1.1 408 ")  # nothing sent at all
    with connect(port) as client:
        client.sendall(GET)
        receive_hello(client)
        time.sleep(0.4)
        client.sendall(GET)  # between requests it may rest longer
        receive_hello(client)
        client.sendall(GET[:20])
        began = time.monotonic()
        assert until_end(client).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 3


BODY = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"


@pytest.mark.parametrize("sent", [b"", GET[:9], BODY], ids=["nothing", "half a head", "half a body"])
def test_slow_connections_make_room(serve: Serve, sent: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    port = serve(hello, head=20, most=10)
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(port)) for _ in range(30)]
        for client in slow:
            client.sendall(sent)
        for _ in range(5):
            assert talk(port, GET[:-2] + b"Connection: close\r\n\r\n").endswith(b"hello")
        assert until_end(slow[0]).startswith(b"HTTP/1.1 503 ")
    assert capfd.readouterr().err == ""


def test_a_full_house_says_so(serve: Serve) -> None:
    async def busy(_scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    port = serve(busy, most=2)
    with connect(port) as one, connect(port) as two:
        for client in (one, two):
            client.sendall(GET)
        time.sleep(0.1)
        received = talk(port, GET)
        assert received.startswith(b"HTTP/1.1 503 ")
        assert received.endswith(b'{"error": "there are too many connections; try again."}')


def test_who_reads_slowly_is_not(serve: Serve) -> None:
    async def large(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b"x" * 2**23})

    port = serve(large, write=0.5)
    with connect(port) as client:
        client.sendall(GET)
        received = 0
        began = time.monotonic()
        while chunk := client.recv(2**16):
            received += len(chunk)
            time.sleep(0.01)
        assert received > 2**23
        assert time.monotonic() - began > 1


def test_who_does_not_read_is_dropped(serve: Serve) -> None:
    ended: list[str] = []

    async def large(_scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not ended:
            await send({"type": "http.response.body", "body": b"x" * 2**20, "more_body": True})
            try:
                async with asyncio.timeout(0.001):
                    await receive()
                    ended.append((await receive())["type"])
            except TimeoutError:
                pass

    port = serve(large, write=0.3)
    with connect(port) as client:
        client.sendall(GET)
        until = time.monotonic() + 10
        while not ended and time.monotonic() < until:
            time.sleep(0.02)
        assert ended == ["http.disconnect"]
