"""OpenAI's paths over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from copy import deepcopy
from functools import partial
from typing import Any, TypeVar

from truthkit.endpoint.desk import Desk
from truthkit.endpoint.engine import Engine
from truthkit.endpoint.metrics import Metrics
from truthkit.endpoint.replies import error_document
from truthkit.endpoint.request import Asked, Reader
from truthkit.serving.answers import Endpoint, routed, with_errors, with_headers
from truthkit.serving.asgi import App, Message, Receive, Scope, Send, header
from truthkit.serving.bodies import Documents, limited
from truthkit.serving.guards import for_hosts, own_host, with_token
from truthkit.serving.line import Line
from truthkit.serving.listening import Listener
from truthkit.serving.outbox import Outbox

MAX_BODY = 32 * 2**20
"""Bytes of a request; images come as base64 inside."""

_WAITING = 256 * 2**20
"""Bytes of the requests that wait, whose images lie in files."""

_NO_KEY = "the API key is missing or wrong; send Authorization: Bearer KEY, which is api_key=KEY of the openai client."

T = TypeVar("T")


class Server:
    """Listens on `host` and `port`, 0 for a free one, and answers once there is an engine.

    Args:
        host: an address of this machine.
        port: its number.
        key: what requests for more than /health must bring; "" lets programs of this machine ask without one, but no
            web page.

    Attributes:
        url: the base URL for clients.
        port: the one that was taken.

    Raises:
        MissingExtraError: starlette or uvicorn is not installed.
        ArgumentError: there is no such address on this machine, or the port is in use.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8000, *, key: str = ""):
        self.host, self._key = host, key
        self._listener = Listener(host, port, "serve")
        self.port = self._listener.port
        self.url = f"{self._listener.origin}/v1"

    def serve(self, engine: Engine, *, batch: int = 16, waiting: int = 256, seconds: float = 600.0) -> None:
        """Answer until `shutdown` or Ctrl-C, which is raised here again; then end what runs.

        Args:
            engine: what answers.
            batch: answers that are made together, at most.
            waiting: answers that may wait.
            seconds: that a batch may have the model.
        """
        line, metrics = Line(seconds, most=waiting, weight=_WAITING), Metrics()
        routes = _routes(engine, Desk(engine, line, metrics, batch), line, metrics)
        app = limited(routed(routes), MAX_BODY)
        if self._key:
            app = with_token(app, self._key, under=("/v1/", "/metrics", "/load_model"), missing=_NO_KEY)
        else:
            app = for_hosts(app, own_host(self.host))
        app = with_headers(with_errors(app, error_document), {"Cache-Control": "no-store"})
        self._listener.serve(_counted(app, metrics, routes), line.close)

    def shutdown(self) -> None:
        """From any thread: end `serve`."""
        self._listener.stop()

    def close(self) -> None:
        """Give the port back, where `serve` never ran."""
        self._listener.close()


def _counted(app: App, metrics: Metrics, paths: Any) -> App:
    """`app`, with its responses counted."""

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in paths else "other"
                metrics.add("truthkit_requests_total", path=path, status=str(int(message["status"])))
            await send(message)

        await app(scope, receive, send_counted)

    return counted


def _routes(engine: Engine, desk: Desk, line: Line, metrics: Metrics) -> dict[str, dict[str, Endpoint]]:
    from starlette.responses import JSONResponse, Response

    documents = Documents()
    offer = engine.offer
    reader = Reader(offer, deepcopy(engine.processor), engine.image_token)
    about = {"id": offer.name, "object": "model", "created": int(time.time()), "owned_by": "truthkit"}
    about |= {"max_model_len": offer.room, "decoder": offer.decoder.text, "steer": dict(offer.vectors)}

    async def models(_scope: Scope, _receive: Receive) -> App:
        return JSONResponse({"object": "list", "data": [about]})

    async def model(_scope: Scope, _receive: Receive) -> App:
        return JSONResponse(about)

    async def health(_scope: Scope, _receive: Receive) -> App:
        return JSONResponse({"status": "ok"})

    async def numbers(_scope: Scope, _receive: Receive) -> App:
        waiting, running = line.lengths
        return Response(metrics.text(waiting=waiting, running=running), media_type="text/plain; version=0.0.4")

    async def load(scope: Scope, receive: Receive) -> App:
        """What `transformers chat` asks first; the model is there."""
        await documents.read(scope, receive, lambda document: document)
        return Response(b'data: {"status": "ready", "cached": true}\n\n', media_type="text/event-stream")

    async def complete(read: Callable[[Any], Asked], scope: Scope, receive: Receive) -> App:
        asked = await documents.read(scope, receive, read)
        return _answering(desk, asked, int(header(scope, "content-length")[0]))

    return {
        "/health": {"GET": health},
        "/metrics": {"GET": numbers},
        "/load_model": {"POST": load},
        "/v1/models": {"GET": models},
        f"/v1/models/{offer.name}": {"GET": model},
        "/v1/chat/completions": {"POST": partial(complete, reader.chat)},
        "/v1/completions": {"POST": partial(complete, reader.text)},
    }


def _answering(desk: Desk, asked: Asked, size: int) -> App:
    """The response to a request whose rows stand in the line; they end when its client leaves.

    It begins with the first piece, so that what fails before is told by the status.

    Raises:
        Refused: too much is waiting.
    """
    from starlette.responses import Response, StreamingResponse

    outbox = Outbox()
    reply, jobs = desk.enter(asked, outbox, size)

    async def response(scope: Scope, receive: Receive, send: Send) -> None:
        contents = outbox.contents()
        try:
            first = await _unless_gone(anext(contents, b""), receive)
            if reply.error is not None:
                raise reply.error
            if not first:
                return
            if asked.stream:
                answer: Any = StreamingResponse(_chained(first, contents), media_type="text/event-stream")
            else:
                rest = [content async for content in contents]
                answer = Response(b"".join([first, *rest]), media_type="application/json")
            await answer(scope, receive, send)
        finally:
            outbox.leave()
            desk.leave(jobs)

    return response


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for content in rest:
        yield content


async def _unless_gone(result: Awaitable[T], receive: Receive) -> T | None:
    """The result, or None where the client leaves before it."""
    wanted = asyncio.ensure_future(result)
    leaving = asyncio.ensure_future(receive())
    try:
        await asyncio.wait({wanted, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return wanted.result() if wanted.done() else None
    finally:
        for one in (wanted, leaving):
            one.cancel()
        await asyncio.gather(wanted, leaving, return_exceptions=True)
