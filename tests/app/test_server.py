"""Who may talk to the app, and what it says to those who may not."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.app.conftest import Ask, asking, serving
from truthkit.app import server as server_module
from truthkit.app.engine import Engine
from truthkit.app.events import Emit
from truthkit.app.request import MAX_BODY, RunRequest
from truthkit.app.server import _STATIC, Server
from truthkit.decoding.discovery import PLAIN, decoders
from truthkit.errors import ArgumentError
from truthkit.serving.line import Line


def error_of(answer: tuple[int, http.client.HTTPMessage, bytes]) -> tuple[int, str]:
    return answer[0], json.loads(answer[2])["error"]


@pytest.mark.parametrize("path", _STATIC)
def test_the_page_is_served_without_a_token_and_with_its_guards(ask: Ask, path: str) -> None:
    status, headers, content = ask("GET", path, Authorization=None)
    assert status == 200
    assert content
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert b"://" not in content.replace(b"http://www.w3.org/2000/svg", b"")


def test_no_path_leads_out_of_the_page(ask: Ask) -> None:
    for path in ("/../server.py", "/static/app.js", "/%2e%2e/engine.py", "//etc/passwd", "/api/nothing"):
        assert ask("GET", path)[0] == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[::", "10.0.0.1"]
)
def test_foreign_host_names_are_refused(ask: Ask, host: str) -> None:
    """DNS rebinding: a foreign page's own name points to this machine."""
    for path in ("/", "/api/about"):
        status, message = error_of(ask("GET", path, Host=host))
        assert status == 403
        assert "host name" in message


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "[::1]:7860"])
def test_forwarded_ports_are_fine(ask: Ask, host: str) -> None:
    assert ask("GET", "/api/about", Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1"])
def test_foreign_pages_are_refused(ask: Ask, origin: str) -> None:
    assert error_of(ask("POST", "/api/run", asking("greedy"), Origin=origin)) == (
        403,
        "requests from other pages are refused.",
    )


@pytest.mark.parametrize("given", [None, "", "Bearer ", "Bearer wrong", "Bearer \u00e9"])
def test_nothing_runs_without_the_token(ask: Ask, given: str | None) -> None:
    for method, path in (("GET", "/api/about"), ("POST", "/api/run"), ("POST", "/api/cancel"), ("GET", "/api/scene")):
        status, message = error_of(ask(method, path, b"{}", Authorization=given))
        assert status == 401
        assert "open the whole address" in message


def test_bodies_are_json_of_limited_length(ask: Ask) -> None:
    assert ask("POST", "/api/run", b"{}", Content_Type="text/plain")[0] == 415
    assert ask("POST", "/api/run", Content_Length=None)[0] == 411
    assert ask("POST", "/api/run", Content_Length="-1")[0] == 400
    assert ask("POST", "/api/run", Content_Length=str(MAX_BODY + 1))[0] == 413
    assert error_of(ask("POST", "/api/run", b"{")) == (400, "the request is not JSON.")
    assert ask("POST", "/api/run", b"[" * 100_000)[0] == 400
    assert error_of(ask("POST", "/api/run", [])) == (400, "the request is not a JSON object.")
    assert error_of(ask("PUT", "/api/run", b"{}")) == (405, "this address answers POST only.")


def test_about_lists_what_the_command_line_has(ask: Ask) -> None:
    facts = json.loads(ask("GET", "/api/about")[2])
    assert [decoder["name"] for decoder in facts["decoders"]] == [*PLAIN, *decoders()]
    assert facts["model"]["takes_images"]
    assert facts["amateurs"] == ["twin"]
    assert facts["vectors"] == [
        {"name": "tone.safetensors", "strength": 1.5, "layers": "2", "all_layers": [1, 2], "site": "block"}
    ]


def test_a_run_streams_lines(ask: Ask) -> None:
    status, headers, content = ask("POST", "/api/run", asking("greedy", "dola"))
    assert (status, headers["Content-Type"]) == (200, "application/x-ndjson")
    events = [json.loads(line) for line in content.splitlines()]
    assert [event["index"] for event in events if event["event"] == "answering"] == [0, 1]
    assert events[-1]["event"] == "end"
    assert not events[-1]["cancelled"]


def test_scenes(ask: Ask) -> None:
    status, headers, content = ask("GET", "/api/scene")
    assert (status, headers["Content-Type"], content[:4]) == (200, "image/png", b"\x89PNG")


def stream(server: Server, document: Any) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    connection.request("POST", "/api/run", json.dumps(document), headers)
    return connection, connection.getresponse()


def test_cancel_stops_a_stream(ask: Ask, server: Server) -> None:
    connection, response = stream(server, asking(*["sample"] * 8, run="two"))
    first = [json.loads(response.readline()) for _ in range(2)]
    assert [event["event"] for event in first] == ["answering", "token"]
    assert json.loads(ask("POST", "/api/cancel", {"run": "another"})[2]) == {"cancelled": False}
    assert json.loads(ask("POST", "/api/cancel", {"run": "two"})[2]) == {"cancelled": True}
    rest = [json.loads(line) for line in response.read().splitlines()]
    assert rest[-1]["event"] == "end"
    assert rest[-1]["cancelled"]
    assert sum(event["event"] == "answering" for event in rest) < 7
    response.close()
    connection.close()
    assert json.loads(ask("POST", "/api/cancel", {"run": "two"})[2]) == {"cancelled": False}


class Paced:
    """In the place of an engine: as many tokens as are asked for, each after a moment; and when it began and ended."""

    def __init__(self, token: str = "x", pause: float = 0.01):
        self.token, self.pause = token, pause
        self.log: list[tuple[str, str]] = []

    def about(self) -> dict[str, Any]:
        return {}

    def problems(self, request: RunRequest) -> list[Any]:
        return []

    def run(self, request: RunRequest, emit: Emit, stop: Callable[[], bool]) -> None:
        self.log.append(("begin", request.run))
        try:
            for _ in range(request.settings["max_new_tokens"]):
                if stop():
                    break
                time.sleep(self.pause)
                emit({"event": "token", "piece": self.token})
            emit({"event": "end", "cancelled": stop(), "seconds": 0.0})
        finally:
            self.log.append(("end", request.run))

    def await_log(self, *entry: str) -> None:
        until = time.monotonic() + 20
        while entry not in self.log:
            assert time.monotonic() < until, self.log
            time.sleep(0.01)


def lasting(run: str, tokens: int = 4096) -> dict[str, Any]:
    return asking("greedy", run=run, settings={"max_new_tokens": tokens})


def close(connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
    response.close()
    connection.close()


def test_who_waits_is_told_the_place_and_who_leaves_is_forgotten(capfd: pytest.CaptureFixture[str]) -> None:
    engine = Paced()
    with serving(engine) as server:
        streams = [stream(server, lasting("a"))]
        json.loads(streams[0][1].readline())
        for name, ahead in (("b", 1), ("c", 2), ("d", 3)):
            streams.append(stream(server, lasting(name, 2)))
            assert json.loads(streams[-1][1].readline()) == {"event": "waiting", "ahead": ahead}
        close(*streams[1])  # b leaves the line
        for (_, response), ahead in zip(streams[2:], (1, 2), strict=True):
            assert json.loads(response.readline()) == {"event": "waiting", "ahead": ahead}
        close(*streams[0])  # a leaves while it is answered
        engine.await_log("end", "a")
        last = [[json.loads(line)["event"] for line in response.read().splitlines()] for _, response in streams[2:]]
        assert last == [["token", "token", "end"], ["waiting", "token", "token", "end"]]
        assert engine.log == [(what, run) for run in "acd" for what in ("begin", "end")]
        for one in streams[2:]:
            close(*one)
    assert capfd.readouterr().err == ""


def test_a_run_has_its_time() -> None:
    with serving(Paced(), seconds=0.2) as server:
        connection, response = stream(server, lasting("a"))
        lines = [json.loads(line) for line in response.read().splitlines()]
        assert lines[-1] == {"event": "end", "cancelled": True, "seconds": 0.0, "limit": 0.2}
        assert len(lines) < 100
        close(connection, response)


def test_who_does_not_read_loses_the_model() -> None:
    """Megabytes that nobody takes: the run ends, and the next one is answered."""
    engine = Paced("x" * 2**20, pause=0.001)
    with serving(engine) as server:
        deaf = stream(server, lasting("deaf"))
        engine.await_log("end", "deaf")
        heard = stream(server, lasting("heard", 1))
        assert heard[1].read().splitlines()[-1].startswith(b'{"event": "end"')
        close(*heard)
        close(*deaf)


def test_a_full_line_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "Line", lambda seconds, **options: Line(seconds, most=1, **options))
    with serving(Paced()) as server:
        streams = [stream(server, lasting("a"))]
        streams[0][1].readline()
        streams.append(stream(server, lasting("b")))
        refused = stream(server, lasting("c"))
        assert refused[1].status == 503
        assert refused[1].headers["Retry-After"] == "5"
        assert json.loads(refused[1].read())["error"].startswith("1 requests are waiting already")
        for one in (*streams, refused):
            close(*one)


def test_a_page_that_has_gone_frees_the_model(ask: Ask, server: Server) -> None:
    connection, response = stream(server, asking(*["sample"] * 8))
    response.readline()
    response.close()
    connection.close()
    assert ask("POST", "/api/run", asking("greedy"))[0] == 200


def test_a_prompt_of_sixty_megabytes_is_refused(ask: Ask) -> None:
    assert error_of(ask("POST", "/api/run", asking("greedy", prompt="x" * 60_000_000))) == (
        413,
        "the request is larger than 32 MB; use smaller images.",
    )
    status, message = error_of(ask("POST", "/api/run", asking("greedy", prompt="x" * 20_000_000)))
    assert (status, message) == (400, "prompt has 20000000 characters; shorten it to 200000.")


def test_a_browser_that_hangs_up_between_requests_is_no_error(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.recv(1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
    time.sleep(0.2)
    assert capfd.readouterr().err == ""


def test_a_fault_is_told_and_leaves_the_server_up(
    ask: Ask, engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "about", lambda: 1 / 0)
    assert error_of(ask("GET", "/api/about")) == (500, "ZeroDivisionError: division by zero")
    assert "Traceback" in capsys.readouterr().err
    assert ask("GET", "/")[0] == 200


def test_the_port_in_use_is_an_error_with_the_way_out(server: Server) -> None:
    with pytest.raises(ArgumentError, match="Port 0 takes a free one"):
        Server(port=server.port)
    with pytest.raises(ArgumentError, match="0 to 65535"):
        Server(port=70000)
    with pytest.raises(ArgumentError, match="cannot be served at 203"):
        Server("203.0.113.7", port=0)


def test_addresses() -> None:
    for host, url in (("0.0.0.0", "http://127.0.0.1:"), ("localhost", "http://localhost:")):
        server = Server(host, port=0)
        try:
            assert server.url.startswith(url)
            assert server.url.endswith(f"/#token={server.token}")
        finally:
            server.close()
