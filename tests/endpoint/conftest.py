"""The endpoint on a tiny model with a vector and an amateur, over real HTTP."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch

pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from tests.tiny import tiny
from tests.training.toys import chat_tokenizer
from truthkit.decoding.spec import parse_spec
from truthkit.endpoint.engine import Engine
from truthkit.endpoint.request import Reader
from truthkit.endpoint.row import Row, Scored
from truthkit.endpoint.server import Server
from truthkit.steering.spec import parse_steer
from truthkit.steering.vector import SteeringVector

WIDTH, LAYER = 48, 2


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return chat_tokenizer()


@pytest.fixture(scope="session")
def tone() -> torch.Tensor:
    """The vector of `engine`, which is named so."""
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="session")
def engine(tokenizer: Any, tone: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    file = tmp_path_factory.mktemp("vectors") / "tone.safetensors"
    SteeringVector({LAYER: tone}, 4).save(file)
    return Engine(
        tiny("llama", eos_token_id=2),
        tokenizer,
        "toy",
        decoder=parse_spec("greedy"),
        amateurs={"twin": tiny("llama", seed=1, eos_token_id=2)},
        steers=[parse_steer(f"{file}:0,layers={LAYER}")],
        new_tokens=400,
    )


@pytest.fixture(scope="session")
def reader(engine: Engine, tokenizer: Any) -> Reader:
    return Reader(engine.offer, tokenizer)


class Heard:
    """What a row told."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.scored: list[Scored] = []
        self.finish = ""
        self.error: Exception | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def said(self, text: str, scored: Sequence[Scored]) -> None:
        assert not self.finish
        self.pieces.append(text)
        self.scored += scored

    def ended(self, finish: str) -> None:
        self.finish = finish

    def failed(self, error: Exception) -> None:
        self.error = error


Answer = Callable[..., list[Heard]]


@pytest.fixture
def answer(engine: Engine, reader: Reader) -> Answer:
    """What comes of documents, each for one answer, that are answered in one batch."""

    def ask(*documents: dict[str, Any], engine: Engine = engine, reader: Reader = reader) -> list[Heard]:
        wishes = [(reader.chat if "messages" in one else reader.text)(one).wishes[0] for one in documents]
        assert len(set(map(engine.kind, wishes))) == 1
        heard = [Heard() for _ in wishes]
        pairs = zip(wishes, heard, strict=True)
        never = lambda: False  # noqa: E731
        engine.answer([Row(wish, engine.tokenizer, engine.ends, one, never, never) for wish, one in pairs])
        return heard

    return ask


@contextmanager
def serving(engine: Engine, key: str = "", **options: Any) -> Iterator[Server]:
    """A server for `engine` in a thread of its own."""
    server = Server(port=0, key=key)
    thread = threading.Thread(target=server.serve, args=(engine,), kwargs=options)
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


@pytest.fixture
def client(server: Server) -> Any:
    openai = pytest.importorskip("openai", reason="the openai package is not installed")
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as made:
        yield made


def ask(port: int, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """One request: status, and its JSON or text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    given = {"Content-Type": "application/json"} if content is not None else {}
    connection.request("GET" if content is None else "POST", path, content, given | headers)
    response = connection.getresponse()
    text = response.read().decode()
    json_wanted = str(response.headers["Content-Type"]).startswith("application/json")
    connection.close()
    return response.status, json.loads(text) if json_wanted else text


def metric(port: int, name: str) -> float:
    """The sum of a metric over its labels."""
    _, text = ask(port, "/metrics")
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"truthkit_{name}"))
