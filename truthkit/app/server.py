"""The page over HTTP: its files and a few paths under /api, for who knows the token of this start.

`truthkit.serving` says who may ask and how much, and has the line before the model. While a run waits it is told how
many are before it; its answers follow on the same response, one JSON document per line.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from dataclasses import asdict
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from truthkit.app.request import MAX_BODY, RunRequest, read_map_request, read_request
from truthkit.serving.answers import Endpoint, routed, with_errors, with_headers
from truthkit.serving.asgi import App, Receive, Refused, Scope, Send, header
from truthkit.serving.bodies import Documents, limited
from truthkit.serving.guards import for_hosts, own_host, with_token
from truthkit.serving.line import Full, Job, Line
from truthkit.serving.listening import Listener
from truthkit.serving.outbox import Outbox

if TYPE_CHECKING:
    from truthkit.app.engine import Engine
    from truthkit.app.events import Emit, Event
    from truthkit.app.problems import Problem

_SCRIPTS = ("app", "api", "cards", "colours", "composer", "difference", "dom", "fields", "history", "patches", "tokens")

_STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.css": ("app.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in _SCRIPTS},
}

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_NO_TOKEN = "the token is missing or of an earlier start; open the whole address that truthkit printed."

_WAITING = 256 * 2**20
"""Bytes of the requests that wait, whose images lie in files."""


class Server:
    """Listens on `host` and `port`, 0 for a free one, and serves the page once there is an engine.

    Attributes:
        token: of this start; every request under /api must bring it.
        url: what to open, with the token behind the #, where no server and no log sees it.
        port: the one that was taken.

    Raises:
        MissingExtraError: starlette or uvicorn is not installed.
        ArgumentError: there is no such address on this machine, or the port is in use.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 7860):
        self.host = host
        self.token = secrets.token_urlsafe(24)
        self._listener = Listener(host, port)
        self.port = self._listener.port
        self.url = f"{self._listener.origin}/#token={self.token}"

    def serve(self, engine: Engine, seconds: float = 600.0) -> None:
        """Serve the page until `shutdown` or Ctrl-C, which is raised here again; then end the run, if there is one.

        Args:
            engine: what answers.
            seconds: that one run may have the model.
        """
        line = Line(seconds, weight=_WAITING)
        app = limited(routed(_routes(engine, line)), MAX_BODY)
        app = with_token(app, self.token, under="/api/", missing=_NO_TOKEN)
        app = with_headers(with_errors(for_hosts(app, own_host(self.host))), _HEADERS)
        self._listener.serve(app, line.close)

    def shutdown(self) -> None:
        """From any thread: end `serve`."""
        self._listener.stop()

    def close(self) -> None:
        """Give the port back, where `serve` never ran."""
        self._listener.close()


def _routes(engine: Engine, line: Line) -> dict[str, dict[str, Endpoint]]:
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse, Response

    documents = Documents()

    def static(name: str, kind: str) -> Endpoint:
        content = (files("truthkit.app") / "static" / name).read_bytes()

        async def endpoint(_scope: Scope, _receive: Receive) -> App:
            return Response(content, media_type=kind)

        return endpoint

    async def about(_scope: Scope, _receive: Receive) -> App:
        return JSONResponse(engine.about())

    async def scene(scope: Scope, _receive: Receive) -> App:
        found = re.fullmatch(rb"seed=(\d{1,9})", scope["query_string"])
        seed = int(found[1]) if found else None
        return Response(await run_in_threadpool(engine.scene, seed), media_type="image/png")

    async def check(scope: Scope, receive: Receive) -> App:
        """What is wrong with cards, while they are being filled in."""

        def problems(document: Any) -> list[Problem]:
            return engine.problems(read_request(document), whole=False)

        return JSONResponse({"problems": [asdict(one) for one in await documents.read(scope, receive, problems)]})

    async def cancel(scope: Scope, receive: Receive) -> App:
        document = await documents.read(scope, receive, lambda document: document)
        run = document.get("run") if isinstance(document, dict) else None
        return JSONResponse({"cancelled": isinstance(run, str) and line.cancel(run)})

    async def run(scope: Scope, receive: Receive) -> App:
        def read(document: Any) -> tuple[RunRequest, list[Problem]]:
            request = read_request(document)
            return request, engine.problems(request)

        request, problems = await documents.read(scope, receive, read)
        if problems:
            content = {"error": problems[0].message, "problems": [asdict(one) for one in problems]}
            return JSONResponse(content, status_code=HTTPStatus.UNPROCESSABLE_ENTITY)
        return _streamed(line, request.run, _size(scope), lambda emit, stop: engine.run(request, emit, stop))

    async def map_(scope: Scope, receive: Receive) -> App:
        request = await documents.read(scope, receive, read_map_request)
        return _streamed(line, request.asked.run, _size(scope), lambda emit, stop: engine.map(request, emit, stop))

    return {
        **{path: {"GET": static(name, kind)} for path, (name, kind) in _STATIC.items()},
        "/api/about": {"GET": about},
        "/api/scene": {"GET": scene},
        "/api/check": {"POST": check},
        "/api/run": {"POST": run},
        "/api/map": {"POST": map_},
        "/api/cancel": {"POST": cancel},
    }


def _size(scope: Scope) -> int:
    return int(header(scope, "content-length")[0])


def _streamed(line: Line, name: str, size: int, run: Callable[[Emit, Callable[[], bool]], None]) -> App:
    """The response that stands in the line, and then is the run's events; it ends the run when its client leaves.

    Raises:
        Refused: too many are waiting.
    """
    from starlette.responses import StreamingResponse

    outbox = Outbox()

    def emit(event: Event) -> None:
        if event["event"] == "end":
            event = {**event, "limit": line.seconds if job.overdue else None}
        outbox.put(json.dumps(event, allow_nan=False).encode() + b"\n")

    def work(stop: Callable[[], bool]) -> None:
        run(emit, stop)

    def moved(ahead: int) -> None:
        emit({"event": "waiting", "ahead": ahead})

    job = Job(work, moved, outbox.close, name=name, weight=size)
    try:
        line.join(job)
    except Full as full:
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, str(full)) from None

    async def response(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            stream = StreamingResponse(
                outbox.contents(), media_type="application/x-ndjson", headers={"Connection": "close"}
            )
            await stream(scope, receive, send)
        finally:
            outbox.leave()
            line.leave(job)

    return response
