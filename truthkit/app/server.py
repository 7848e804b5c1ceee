"""The page over HTTP: six paths, nothing from the file system, and only for who knows the token.

The standard library's server is enough for one person on one machine, and adds nothing to install. What it leaves open
is closed here: requests under a foreign host name (DNS rebinding), from a foreign page (cross-site requests), without
the token of this start (other users of the machine), or larger than `MAX_BODY`.
"""

from __future__ import annotations

import errno
import hmac
import ipaddress
import json
import os
import secrets
import socket
import socketserver
import sys
import traceback
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from truthkit.app.engine import Busy, Engine
from truthkit.app.events import Event, Gone
from truthkit.app.request import MAX_BODY, read_request
from truthkit.errors import ArgumentError

_STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.css": ("app.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
        for name in ("app", "api", "cards", "composer", "dom", "tokens")
    },
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


class Server(socketserver.ThreadingTCPServer):
    """Listens on `host` and `port`, 0 for a free one, and serves the page once there is an engine.

    Attributes:
        token: of this start; every request under /api must bring it.
        url: what to open, with the token behind the #, where no server and no log sees it.

    Raises:
        ArgumentError: there is no such address on this machine, or the port is in use.
    """

    allow_reuse_address = os.name == "posix"
    daemon_threads = True

    engine: Engine

    def __init__(self, host: str = "127.0.0.1", port: int = 7860):
        self.host = host
        self.token = secrets.token_urlsafe(24)
        self.static = {
            path: (files("truthkit.app") / "static" / name).read_bytes() for path, (name, _) in _STATIC.items()
        }
        try:
            self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            super().__init__((host, port), _Handler)
        except OverflowError:
            raise ArgumentError(f"port is {port}; expected 0 to 65535.") from None
        except OSError as error:
            way_out = " Port 0 takes a free one." if error.errno in (errno.EADDRINUSE, errno.EACCES) else ""
            reason = error.strerror or error
            raise ArgumentError(f"the page cannot be served at {host}, port {port}: {reason}.{way_out}") from None

    @property
    def url(self) -> str:
        """The page's address."""
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        shown = f"[{shown}]" if ":" in shown else shown
        return f"http://{shown}:{self.server_address[1]}/#token={self.token}"

    def knows_host(self, name: str) -> bool:
        """Whether `name`, of a Host header, can only mean this machine.

        A loopback address or "localhost", the host that was asked for, or, where that is all addresses of the machine,
        any address and the machine's own name.
        """
        if name in ("localhost", "127.0.0.1", "::1", self.host.lower()):
            return True
        if self.host not in ("0.0.0.0", "::"):
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name == socket.gethostname().lower()
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up between two requests is no error; everything else is shown."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    def serve(self, engine: Engine) -> None:
        """Serve the page until `shutdown` or an exception, such as Ctrl-C; then end the run, if there is one."""
        self.engine = engine
        try:
            self.serve_forever()
        finally:
            self.server_close()
            engine.close()


class _Refused(Exception):
    """A request that gets an error instead of an answer."""

    def __init__(self, status: HTTPStatus, message: str):
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "truthkit", ""
    protocol_version = "HTTP/1.1"
    timeout = 30.0  # seconds that a connection may stand still
    _streaming = False

    def do_GET(self) -> None:
        api = {"/api/about": self._about, "/api/scene": self._scene}
        self._guarded(dict.fromkeys(_STATIC, self._send_static) | api)

    def do_POST(self) -> None:
        self._guarded({"/api/run": self._run, "/api/cancel": self._cancel})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class calls it so)
        """Requests are no news on one's own machine."""

    def _guarded(self, routes: dict[str, Any]) -> None:
        """Answer by the route, or with what is wrong."""
        try:
            self._check_host()
            if (route := routes.get(self.path)) is None:
                raise _Refused(HTTPStatus.NOT_FOUND, "there is nothing at this address.")
            if self.path.startswith("/api/"):
                self._check_token()
            route()
        except _Refused as refused:
            self._send_error(refused.status, str(refused))
        except ArgumentError as error:
            self._send_error(HTTPStatus.BAD_REQUEST, " ".join(str(error).split()))
        except Busy as error:
            self._send_error(HTTPStatus.CONFLICT, str(error))
        except (Gone, ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:
            traceback.print_exception(error)
            self._send_error(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")

    # -- checks --------------------------------------------------------------------------------------------------------

    def _check_host(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not self.server.knows_host(_name(hosts[0])):
            raise _Refused(
                HTTPStatus.FORBIDDEN, "this host name is not that of truthkit app; use the address it printed."
            )
        origin = self.headers.get("Origin")
        if origin is not None and origin.lower() != f"http://{hosts[0].lower()}":
            raise _Refused(HTTPStatus.FORBIDDEN, "requests from other pages are refused.")

    def _check_token(self) -> None:
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.server.token}".encode()):
            raise _Refused(
                HTTPStatus.UNAUTHORIZED,
                "the token is missing or of an earlier start; open the whole address that truthkit app printed.",
            )

    def _body(self) -> Any:
        """The JSON document that was sent."""
        if self.headers.get_content_type() != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json.")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length.")
        if int(length) > MAX_BODY:
            limit = MAX_BODY // 2**20
            raise _Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request is larger than {limit} MB; use smaller images."
            )
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise _Refused(HTTPStatus.BAD_REQUEST, "the request is not JSON.") from None

    # -- routes --------------------------------------------------------------------------------------------------------

    def _send_static(self) -> None:
        self._send(HTTPStatus.OK, self.server.static[self.path], _STATIC[self.path][1])

    def _about(self) -> None:
        self._send_json(HTTPStatus.OK, self.server.engine.about())

    def _scene(self) -> None:
        self._send(HTTPStatus.OK, self.server.engine.scene(), "image/png")

    def _cancel(self) -> None:
        document = self._body()
        run = document.get("run") if isinstance(document, dict) else None
        self._send_json(HTTPStatus.OK, {"cancelled": isinstance(run, str) and self.server.engine.cancel(run)})

    def _run(self) -> None:
        """Stream the run's events, one JSON document per line, until the connection closes."""
        request = read_request(self._body())

        def emit(event: Event) -> None:
            line = json.dumps(event, allow_nan=False).encode() + b"\n"
            try:
                if not self._streaming:
                    self._begin(HTTPStatus.OK, "application/x-ndjson", {"Connection": "close"})
                    self._streaming = True
                self.wfile.write(line)
            except OSError as error:
                raise Gone from error

        self.server.engine.run(request, emit)

    # -- answers -------------------------------------------------------------------------------------------------------

    def _begin(self, status: HTTPStatus, kind: str, more: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **_HEADERS, **more}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, status: HTTPStatus, content: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self._begin(status, kind, {"Content-Length": str(len(content)), **(more or {})})
        self.wfile.write(content)

    def _send_json(self, status: HTTPStatus, document: Any, more: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(document).encode(), "application/json", more)

    def _send_error(self, status: HTTPStatus, message: str) -> None:
        """The error, on a connection that closes: what is left of the request is not read.

        A stream that has begun just ends; the page knows from the missing "end" that it was cut short.
        """
        self.close_connection = True
        if self._streaming:
            return
        with suppress(ConnectionError, TimeoutError):
            self._send_json(status, {"error": message}, {"Connection": "close"})


def _name(host: str) -> str:
    """The name in a Host header, without port and brackets; "" where there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
