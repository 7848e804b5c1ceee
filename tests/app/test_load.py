"""The app under load, from the outside: nobody is reset, its memory stays, and who asks is answered."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.app.conftest import asking
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")

QUICK = """
import time
from tests.app.test_server import Paced
from truthkit.app.server import Server
server = Server(port=0)
print("truthkit app:", server.url, flush=True)
server.serve(Paced("x" * 2**10, pause=0.001))
"""
REAL = "from truthkit.cli import main; main(['app', '--model', 'scene-vlm', '--port', '0'])"


class App:
    """The app in a process of its own."""

    def __init__(self, code: str):
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        url = urlsplit(self.process.stdout.readline().partition(": ")[2].strip())
        self.port, self.token = url.port, url.fragment.removeprefix("token=")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=120)

    def ask(self, run: str, tokens: int, **fields: Any) -> tuple[http.client.HTTPConnection, Any]:
        """A run that was sent; its response is not read."""
        document = asking("greedy", run=run, settings={"max_new_tokens": tokens}, **fields)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        connection.request("POST", "/api/run", json.dumps(document), headers)
        return connection, connection.getresponse()

    def answer(self, run: str) -> list[dict[str, Any]]:
        connection, response = self.ask(run, 8)
        events = [json.loads(line) for line in response.read().splitlines()]
        response.close()
        connection.close()
        return events

    def memory(self, field: str) -> float:
        """MB of this process: VmRSS now, or VmHWM, the most since `forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{field}:")[2].split()[0]) / 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def end(self) -> str:
        self.process.terminate()
        return self.process.communicate(timeout=60)[1]


class Slow:
    """Connections that send a byte of their request now and then, in a thread, until they are ended."""

    def __init__(self, app: App, count: int):
        self.open = [app.connect() for _ in range(count)]
        self.ends: Counter[str] = Counter()
        for client in self.open:
            client.sendall(b"GET / HTTP/1.1\r\nX: ")
            client.setblocking(False)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._trickle)
        self._thread.start()

    def _trickle(self) -> None:
        while not self._over.wait(0.2):
            for client in list(self.open):
                try:
                    end = client.recv(2**12).partition(b"\r\n")[0].decode()
                except BlockingIOError:
                    client.send(b"x")
                    continue
                except OSError as error:
                    end = type(error).__name__
                self.ends[end] += 1
                self.open.remove(client)
                client.close()

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        for client in self.open:
            client.close()


def large_body(app: App) -> str:
    """What 60 MB get: the first line of the answer, after all of them were sent."""
    with app.connect() as client:
        head = f"POST /api/run HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {app.token}\r\n"
        client.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {60 * 2**20}\r\n\r\n".encode())
        for _ in range(60):
            client.sendall(b"x" * 2**20)
        return client.recv(2**12).partition(b"\r\n")[0].decode()


@pytest.mark.parametrize(
    ("code", "answers", "slow"),
    [pytest.param(QUICK, 20, 100, id="quick"), pytest.param(REAL, 50, 800, id="real", marks=pytest.mark.slow)],
)
def test_under_load(code: str, answers: int, slow: int) -> None:
    app = App(code)
    try:
        assert app.answer("first")[-1]["event"] == "end"
        before = app.memory("VmRSS")
        app.forget_peak()
        crowd = Slow(app, slow)
        deaf = app.ask("deaf", 4096 if code is QUICK else 400, cards=[{"decoder": "greedy"}] * 8)
        began = time.monotonic()
        with ThreadPoolExecutor(answers + 1) as pool:
            body = pool.submit(large_body, app)
            runs = list(pool.map(app.answer, map(str, range(answers))))
        took = time.monotonic() - began
        crowd.end()
        deaf[1].close()
        deaf[0].close()
        grown = app.memory("VmHWM") - before
    finally:
        shown = app.end()
    print(f"{answers} answers in {took:.1f} s; {grown:.0f} MB above {before:.0f} MB; slow: {dict(crowd.ends)}")
    assert [run[-1]["event"] for run in runs] == ["end"] * answers
    assert not any(run[-1]["cancelled"] for run in runs)
    assert any(run[0]["event"] == "waiting" for run in runs)
    assert body.result() == "HTTP/1.1 413 Request Entity Too Large"
    assert crowd.ends.keys() <= {"HTTP/1.1 408 Request Timeout", "HTTP/1.1 503 Service Unavailable"}
    assert grown < 200
    assert shown == ("truthkit: terminated\n" if code is REAL else "")


def photograph(seed: int) -> str:
    """12 megapixels as a JPEG file of 3.5 MB, in base64."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (300, 400, 3), dtype=np.uint8)).resize((4000, 3000))
    pixels = np.clip(np.asarray(coarse) + draw.normal(0, 6, (3000, 4000, 3)), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=88)
    return base64.b64encode(stream.getvalue()).decode()


@pytest.mark.slow
def test_photographs_wait_undecoded() -> None:
    pictures, app = [photograph(seed) for seed in range(4)], App(REAL)

    def ask(number: int) -> list[dict[str, Any]]:
        connection, response = app.ask(f"run {number}", 8, images=[pictures[number % 4]])
        events = [json.loads(line) for line in response.read().splitlines()]
        response.close()
        connection.close()
        return events

    try:
        assert app.answer("first")[-1]["event"] == "end"
        before = app.memory("VmRSS")
        app.forget_peak()
        with ThreadPoolExecutor(16) as pool:
            runs = list(pool.map(ask, range(16)))
        grown, kept = app.memory("VmHWM") - before, app.memory("VmRSS") - before
    finally:
        app.end()
    print(f"{grown:.0f} MB above {before:.0f} MB, {kept:.0f} MB afterwards")
    texts = [next(event["text"] for event in run if event["event"] == "answer") for run in runs]
    assert texts[:4] * 4 == texts
    assert grown < 200
