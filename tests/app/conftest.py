"""The app on the shipped image-text model, with a vector and an amateur, over real HTTP."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPMessage
from typing import Any

import pytest
import torch

import truthkit as tk
from truthkit.app.engine import Engine
from truthkit.app.server import Server
from truthkit.steering.spec import parse_steer
from truthkit.steering.vector import SteeringVector


@pytest.fixture(scope="session")
def scene_vlm() -> tuple[Any, Any]:
    return tk.load("scene-vlm")


@pytest.fixture(scope="session")
def engine(scene_vlm: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Engine:
    model, processor = scene_vlm
    width = model.config.get_text_config().hidden_size
    directions = {layer: torch.randn(width, generator=torch.Generator().manual_seed(layer)) for layer in (1, 2)}
    file = tmp_path_factory.mktemp("vectors") / "tone.safetensors"
    SteeringVector(directions, 4).save(file)
    amateur = tk.load("scene-vlm")
    return Engine(
        model, processor, "scene-vlm", amateurs={"twin": amateur}, steers=[parse_steer(f"{file}:1.5,layers=2")]
    )


@contextmanager
def serving(engine: Any, seconds: float = 600.0) -> Iterator[Server]:
    """A server for `engine` in a thread of its own."""
    server = Server(port=0)
    thread = threading.Thread(target=server.serve, args=(engine, seconds))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def server(engine: Engine) -> Iterator[Server]:
    with serving(engine) as running:
        yield running


Ask = Callable[..., tuple[int, HTTPMessage, bytes]]


@pytest.fixture
def ask(server: Server) -> Ask:
    """One request: status, headers and body. A header that is None is left out."""

    def request(method: str, path: str, body: Any = None, **headers: str | None) -> tuple[int, HTTPMessage, bytes]:
        port = server.port
        given: dict[str, str | None] = {
            "Host": f"127.0.0.1:{port}",
            "Authorization": f"Bearer {server.token}",
            "Content-Type": "application/json",
        }
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        if content is not None:
            given["Content-Length"] = str(len(content))
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.putrequest(method, path, skip_host=True)
        for name, value in given.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(content)
        response = connection.getresponse()
        answer = response.status, response.headers, response.read()
        response.close()
        connection.close()
        return answer

    return request


def asking(*cards: Any, **fields: Any) -> dict[str, Any]:
    """A run's document; a card is a decoder's name, or all of it."""
    written = [{"decoder": card, "options": {}} if isinstance(card, str) else card for card in cards]
    settings = {"max_new_tokens": 12, "seed": 0, "sample": False, "temperature": None, "top_p": None}
    document = {"run": "one", "prompt": "Describe the picture.", "settings": settings, "cards": written}
    return document | fields
