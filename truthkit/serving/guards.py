"""Who may ask: this machine's own names, this page, whoever has the token.

What that closes: requests under a foreign host name (DNS rebinding), from a foreign page (cross-site requests), and
without the token of this start (other users of the machine).
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Callable
from http import HTTPStatus

from truthkit.serving.asgi import App, Receive, Refused, Scope, Send, header

_HOST = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[0-9a-z._-]+))(?::[0-9]{1,5})?", re.IGNORECASE)


def own_host(asked: str) -> Callable[[str], bool]:
    """Whether a name, of a Host header, can only mean this machine, where the server listens on `asked`.

    A loopback address or "localhost", the host that was asked for, or, where that is all addresses of the machine, any
    address and the machine's own name.
    """

    def known(name: str) -> bool:
        if name in ("localhost", "127.0.0.1", "::1", asked.lower()):
            return True
        if asked not in ("0.0.0.0", "::"):
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name == socket.gethostname().lower()
        return True

    return known


def for_hosts(app: App, known: Callable[[str], bool]) -> App:
    """`app`, for requests under a known host name and from its own pages alone."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        hosts = header(scope, "host")
        if len(hosts) != 1 or not known(_name(hosts[0])):
            raise Refused(HTTPStatus.FORBIDDEN, "this host name is not that of truthkit; use the address it printed.")
        for origin in header(scope, "origin"):
            if origin.lower() != f"http://{hosts[0].lower()}":
                raise Refused(HTTPStatus.FORBIDDEN, "requests from other pages are refused.")
        await app(scope, receive, send)

    return guarded


def with_token(app: App, token: str, under: str | tuple[str, ...], missing: str) -> App:
    """`app`, whose paths under one of `under` want `Authorization: Bearer` and the token; else `missing` is said."""
    wanted = f"Bearer {token}".encode()

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(under):
            given = header(scope, "authorization")
            if len(given) != 1 or not hmac.compare_digest(given[0].encode(), wanted):
                raise Refused(HTTPStatus.UNAUTHORIZED, missing)
        await app(scope, receive, send)

    return guarded


def _name(host: str) -> str:
    """The name in a Host header, without port and brackets; "" where it is none."""
    match = _HOST.fullmatch(host)
    return (match["address"] or match["name"]).lower() if match else ""
