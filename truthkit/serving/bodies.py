"""What a request brings: so many bytes in so much time, and JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar

from truthkit.serving.asgi import App, Message, Receive, Refused, Scope, Send, header

T = TypeVar("T")

_LARGE = 2**18  # bytes above which few bodies are held at once
_LARGE_AT_ONCE = 2
_PARTS = 100_000  # commas and brackets: what a document may hold besides long texts


def limited(app: App, most: int, *, silent: float = 15.0, whole: float = 120.0) -> App:
    """`app`, for bodies of at most `most` bytes, that say so before and then come.

    Args:
        app: what reads them.
        most: bytes.
        silent: seconds without a byte after which the request is given up.
        whole: seconds in which all of the body must have come, counted while somebody reads.
    """

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        lengths = header(scope, "content-length")
        if scope["method"] in ("GET", "HEAD"):
            if lengths not in ([], ["0"]) or header(scope, "transfer-encoding"):
                raise Refused(HTTPStatus.BAD_REQUEST, f"a {scope['method']} request has no body; leave it out.")
            await app(scope, receive, send)
            return
        if len(lengths) != 1 or header(scope, "transfer-encoding"):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length.")
        if len(lengths[0]) > 20 or int(lengths[0]) > most:
            limit = most // 2**20
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request is larger than {limit} MB; use smaller images."
            )
        left = whole
        complete = False

        async def receive_in_time() -> Message:
            nonlocal left, complete
            if complete:
                return await receive()
            loop = asyncio.get_running_loop()
            began = loop.time()
            try:
                async with asyncio.timeout(min(silent, left)):
                    message = await receive()
            except TimeoutError:
                raise Refused(HTTPStatus.REQUEST_TIMEOUT, "the request did not come to its end in time.") from None
            left = max(left - (loop.time() - began), 0.0)
            complete = not message.get("more_body", False)
            return message

        await app(scope, receive_in_time, send)

    return guarded


class Documents:
    """Reads JSON bodies, few large ones at once, and one after the other once they are there; behind `limited`.

    A document is parsed and checked in a thread of its own, so that the others are answered meanwhile.
    """

    def __init__(self) -> None:
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._reader = ThreadPoolExecutor(1, "truthkit reader")

    async def read(self, scope: Scope, receive: Receive, check: Callable[[Any], T]) -> T:
        """What `check` makes of the document.

        Raises:
            Refused: the body is not JSON or does not come.
            ArgumentError: of `check`.
        """
        kinds = header(scope, "content-type")
        if len(kinds) != 1 or kinds[0].partition(";")[0].strip().lower() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json.")
        if int(header(scope, "content-length")[0]) <= _LARGE:
            return await self._read(receive, check)
        async with self._large:
            return await self._read(receive, check)

    async def _read(self, receive: Receive, check: Callable[[Any], T]) -> T:
        chunks: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(HTTPStatus.BAD_REQUEST, "the request broke off.")
            chunks.append(message.get("body", b""))
            more = message.get("more_body", False)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reader, lambda: check(parsed(_joined(chunks))))


def _joined(chunks: list[bytes]) -> bytes:
    """The whole body, of which nothing is kept elsewhere."""
    body = b"".join(chunks)
    chunks.clear()
    return body


def parsed(body: bytes) -> Any:
    """A JSON document by the letter of its standard, in UTF-8.

    Raises:
        Refused: it is none, or of so many parts that they would take far more memory than the body.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > _PARTS:
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request has more than {_PARTS} parts.")
    try:
        return json.loads(body.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Refused(HTTPStatus.BAD_REQUEST, "the request is not JSON.") from None


def _refuse(word: str) -> NoReturn:
    raise ValueError(word)
