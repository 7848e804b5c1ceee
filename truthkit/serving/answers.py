"""From a path to its endpoint, and from whatever is raised on the way to one line of JSON."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from truthkit.errors import ArgumentError
from truthkit.serving.asgi import App, Message, Receive, Refused, Scope, Send

Endpoint = Callable[[Scope, Receive], Awaitable[App]]
"""Takes a request, returns its response: those of starlette are ASGI applications."""

Describe = Callable[[HTTPStatus, str], Any]
"""What an error looks like, as a JSON value."""

_LINGER = 15.0  # seconds in which the rest of a refused body is thrown away, so that its sender gets to the answer
_SILENCE = 1.0  # of them without a byte, which end it


def routed(routes: Mapping[str, Mapping[str, Endpoint]]) -> App:
    """The application that has an endpoint for each path and method; HEAD is GET without the body."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        methods = routes.get(scope["path"])
        if methods is None:
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing at this address.")
        endpoint = methods.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if endpoint is None:
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"this address answers {' and '.join(methods)} only.")
        response = await endpoint(scope, receive)
        await response(scope, receive, send)

    return app


def with_headers(app: App, headers: Mapping[str, str]) -> App:
    """`app`, with these headers on every response."""
    added = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await app(scope, receive, send_more)

    return wrapped


def with_errors(app: App, describe: Describe = lambda _status, message: {"error": message}) -> App:
    """`app`, with what it raises as a response: what was refused, a wrong argument (400), or a fault (500).

    A fault is shown whole on standard error. A response that has begun just ends; its reader sees what is missing.
    """

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        whole = False

        async def receive_counted() -> Message:
            nonlocal whole
            message = await receive()
            whole = not message.get("more_body", False)
            return message

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await app(scope, receive_counted, send_noted)
            return
        except Refused as refused:
            status, message = refused.status, str(refused)
        except ArgumentError as error:
            status, message = HTTPStatus.BAD_REQUEST, " ".join(str(error).split())
        except Exception as error:
            traceback.print_exception(error)
            status, message = HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}"
        if begun:
            return
        await send_error(send, status, json.dumps(describe(status, message)).encode())
        if not whole:
            await _throw_away(receive)
        await send({"type": "http.response.body", "body": b""})

    return wrapped


async def send_error(send: Send, status: HTTPStatus, body: bytes) -> None:
    """The error, on a connection that closes; the response is left open."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", b"5"))
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _throw_away(receive: Receive) -> None:
    """Read what is left of a body for a moment: closing on it would reset the connection before the error is read."""
    try:
        async with asyncio.timeout(_LINGER):
            more = True
            while more:
                async with asyncio.timeout(_SILENCE):
                    more = (await receive()).get("more_body", False)
    except TimeoutError:
        pass
