"""Requests that cannot be right, over a real socket: one line of JSON each, never a fault, never a reset."""

from __future__ import annotations

import json
import socket
import time
from http import HTTPStatus
from typing import Any

import pytest

from tests.serving.conftest import Serve, talk, until_end
from truthkit.serving import answers
from truthkit.serving.answers import routed, with_errors, with_headers
from truthkit.serving.asgi import App, Receive, Refused, Scope
from truthkit.serving.bodies import Documents, limited, parsed
from truthkit.serving.guards import for_hosts, own_host, with_token

MOST = 50 * 2**10


def echo(**limits: Any) -> App:
    """An application that answers a document with its type, behind every guard."""
    from starlette.responses import JSONResponse

    documents = Documents()

    async def post(scope: Scope, receive: Receive) -> App:
        return JSONResponse(await documents.read(scope, receive, lambda document: type(document).__name__))

    async def get(_scope: Scope, _receive: Receive) -> App:
        return JSONResponse("hello")

    app = with_token(
        limited(routed({"/": {"POST": post, "GET": get}}), MOST, **limits),
        "secret",
        under="/",
        missing="the token is missing.",
    )
    return with_headers(with_errors(for_hosts(app, own_host("127.0.0.1"))), {"X-Guard": "on"})


def head(line: str = "POST / HTTP/1.1", **headers: str | None) -> bytes:
    fields: dict[str, str | None] = {"Host": "localhost", "Authorization": "Bearer secret", "Connection": "close"}
    fields |= {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [line, *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def answer(received: bytes) -> tuple[int, Any]:
    """Status and JSON of the one response there is."""
    top, _, body = received.partition(b"\r\n\r\n")
    assert received.count(b"HTTP/1.1 ") == 1
    assert body.count(b"\n") == 0
    return int(top.split()[1]), json.loads(body)


NINES = "9" * 5000
BAD = {
    "a body on a GET": (head("GET / HTTP/1.1", Content_Length="5") + b"GET /", 400, "a GET request has no body"),
    "chunks on a GET": (head("GET / HTTP/1.1", Transfer_Encoding="chunked") + b"0\r\n\r\n", 400, "has no body"),
    "5,000 digits": (head(Content_Length=NINES), 400, "this is no HTTP request"),
    "20 digits": (head(Content_Length="9" * 20), 413, "larger than 0 MB"),
    "too large": (head(Content_Length=str(MOST + 1)) + b"x" * (MOST + 1), 413, "larger than"),
    "no length": (head(), 411, "expected a Content-Length"),
    "chunks": (head(Transfer_Encoding="chunked") + b"2\r\n{}\r\n0\r\n\r\n", 411, "expected a Content-Length"),
    "both": (head(Transfer_Encoding="chunked", Content_Length="2") + b"{}", 411, "expected a Content-Length"),
    "two lengths": (head(Content_Length="2\r\nContent-Length: 3") + b"{}", 400, "this is no HTTP request"),
    "a negative length": (head(Content_Length="-1"), 400, "this is no HTTP request"),
    "a user in the host": (head("GET / HTTP/1.1", Host="evil@127.0.0.1"), 403, "this host name is not"),
    "a path in the host": (head("GET / HTTP/1.1", Host="localhost/evil"), 403, "this host name is not"),
    "a foreign host": (head("GET / HTTP/1.1", Host="evil.example"), 403, "this host name is not"),
    "no host": (head("GET / HTTP/1.1", Host=None), 400, "this is no HTTP request"),
    "no host, HTTP/1.0": (head("GET / HTTP/1.0", Host=None), 403, "this host name is not"),
    "two hosts": (head("GET / HTTP/1.1", Host="localhost\r\nHost: localhost"), 400, "this is no HTTP request"),
    "a foreign page": (head(Origin="http://evil.example", Content_Length="2") + b"{}", 403, "from other pages"),
    "no token": (head(Authorization=None, Content_Length="2") + b"{}", 401, "the token is missing"),
    "a wrong token": (head(Authorization="Bearer \xff", Content_Length="2") + b"{}", 401, "the token is missing"),
    "no such path": (head("GET /../x HTTP/1.1"), 404, "nothing at this address"),
    "no such method": (head("DELETE / HTTP/1.1", Content_Length="0"), 405, "answers POST and GET only"),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "this is no HTTP request"),
    "a long head": (b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 100_000, 400, "its head is too long"),
    "no JSON": (head(Content_Length="1") + b"{", 400, "the request is not JSON."),
    "another type": (head(Content_Type="text/plain", Content_Length="2") + b"{}", 415, "expected application/json."),
    "nested": (head(Content_Length="40000") + b"[" * 20_000 + b"]" * 20_000, 400, "the request is not JSON."),
    "not UTF-8": (head(Content_Length="3") + b'"\xff"', 400, "the request is not JSON."),
    "NaN": (head(Content_Length="3") + b"NaN", 400, "the request is not JSON."),
    "digits": (head(Content_Length="5000") + NINES.encode(), 400, "the request is not JSON."),
}


@pytest.fixture
def port(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(answers, "_SILENCE", 0.3)
    return serve(echo())


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_right_is_refused_in_a_line(port: int, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    content, status, message = BAD[case]
    found, document = answer(talk(port, content))
    assert (found, list(document)) == (status, ["error"])
    assert message in document["error"]
    assert answer(talk(port, head("GET / HTTP/1.1"))) == (200, "hello")
    assert capfd.readouterr().err == ""


def test_what_is_right_is_answered(port: int) -> None:
    received = talk(port, head(Content_Length="2", Content_Type="Application/JSON; charset=utf-8") + b"[]")
    assert answer(received) == (200, "list")
    assert b"\r\nx-guard: on\r\n" in received
    assert talk(port, head("HEAD / HTTP/1.1")).endswith(b"\r\n\r\n")


def test_a_refused_body_is_not_waited_for(port: int) -> None:
    """60 MB are announced; the answer is there after the head, and to a client that sends it all the same."""
    announced = head(Content_Length=str(60 * 2**20))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(announced)
        assert client.recv(2**16).startswith(b"HTTP/1.1 413 ")
    assert answer(talk(port, announced + b"x" * 60 * 2**20))[0] == 413


def test_a_body_that_does_not_come_is_given_up(serve: Serve) -> None:
    port = serve(echo(silent=0.1, whole=0.5))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(head(Content_Length="10") + b"[")
        assert answer(until_end(client))[0] == 408
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(head(Content_Length="1000"))
        began = time.monotonic()
        client.settimeout(0.05)
        received = b""
        while not received and time.monotonic() < began + 5:
            client.sendall(b"[")
            try:
                received = client.recv(2**16)
            except TimeoutError:
                continue
        assert received.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 3


def test_documents_of_many_parts_take_no_memory() -> None:
    assert parsed(b'["' + b"," * 1000 + b'", {}]') == ["," * 1000, {}]
    with pytest.raises(Refused, match="more than 100000 parts") as caught:
        parsed(b"[" + b"[]," * 200_000 + b"[]]")
    assert caught.value.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


@pytest.mark.parametrize(
    ("asked", "name", "known"),
    [
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "::1", True),
        ("127.0.0.1", "192.168.1.7", False),
        ("0.0.0.0", "192.168.1.7", True),
        ("::", socket.gethostname().lower(), True),
        ("0.0.0.0", "evil.example", False),
        ("My.Host", "my.host", True),
    ],
)
def test_own_names(asked: str, name: str, known: bool) -> None:
    assert own_host(asked)(name) == known
