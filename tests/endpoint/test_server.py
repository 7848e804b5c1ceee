"""The endpoint as clients meet it: the openai package, raw HTTP, and clients that do not behave."""

from __future__ import annotations

import base64
import http.client
import io
import json
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import truthkit as tk
from tests.endpoint.conftest import Heard, ask, metric, serving
from tests.endpoint.test_requests import DOCUMENT, data_url, with_image
from tests.endpoint.test_rows import QUESTIONS, Drawing, alone, chat
from truthkit.decoding.spec import parse_spec
from truthkit.endpoint.engine import Engine
from truthkit.endpoint.request import Reader
from truthkit.endpoint.row import Row
from truthkit.endpoint.server import Server
from truthkit.scenes.render import render
from truthkit.scenes.scene import sample_scene
from truthkit.steering.spec import parse_steer
from truthkit.steering.vision import VisionVector


def test_the_openai_client_asks_whole_and_streamed(client: Any, engine: Engine) -> None:
    assert [model.id for model in client.models.list()] == ["toy"] == [client.models.retrieve("toy").id]
    expected = alone(engine, QUESTIONS[0])
    options: dict[str, Any] = {"model": "toy", "messages": chat(QUESTIONS[0])["messages"], "max_tokens": 12}
    whole = client.chat.completions.create(**options)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (expected, "length")
    assert whole.usage.completion_tokens == 12
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}, n=2))
    for index in (0, 1):
        own = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
        assert own[0].delta.role == "assistant"
        assert "".join(choice.delta.content or "" for choice in own) == expected
        assert [choice.finish_reason for choice in own if choice.finish_reason] == ["length"]
    assert chunks[-1].usage.completion_tokens == 24
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    told = client.chat.completions.create(**options, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert "".join(one.token for one in told) == expected
    assert all(len(one.top_logprobs) == 2 for one in told)


def test_the_openai_client_completes_texts(client: Any) -> None:
    options: dict[str, Any] = {"model": "toy", "prompt": ["so it", "and so on"], "max_tokens": 6}
    whole = client.completions.create(**options)
    assert [choice.index for choice in whole.choices] == [0, 1]
    pieces = ["", ""]
    for chunk in client.completions.create(**options, stream=True):
        for choice in chunk.choices:
            pieces[choice.index] += choice.text
    assert pieces == [choice.text for choice in whole.choices]
    read = client.completions.create(model="toy", prompt="so it", max_tokens=0, echo=True, logprobs=1).choices[0]
    assert read.text == "so it"
    assert (read.logprobs.token_logprobs[0], len(read.logprobs.tokens)) == (None, len(read.logprobs.text_offset))


def test_the_openai_client_is_told_what_is_wrong(client: Any) -> None:
    import openai

    with pytest.raises(openai.BadRequestError, match="did you mean 'dola'") as wrong:
        client.chat.completions.create(model="toy", messages=chat("?")["messages"], extra_body={"decoder": "dolla"})
    assert wrong.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError, match="this server has 'toy'"):
        client.chat.completions.create(model="gpt", messages=chat("?")["messages"])


def test_one_after_the_other_or_all_at_once(server: Server, engine: Engine, tone: torch.Tensor) -> None:
    """Decoders, strengths, seeds and streams mixed: each client gets its own answer, and few batches are needed."""
    documents = [
        chat(QUESTIONS[number % 3], steer=number % 4, **more)
        for number, more in enumerate(
            3 * [{}, {"temperature": 0.7, "seed": 4}, {"stream": True}, {"decoder": "dola:layers=0+1"}]
        )
    ]

    def said(document: dict[str, Any]) -> str:
        status, answer = ask(server.port, "/v1/chat/completions", document)
        assert status == 200
        if not document.get("stream"):
            return str(answer["choices"][0]["message"]["content"])
        events = [json.loads(line[6:]) for line in answer.splitlines() if line.startswith("data: {")]
        return "".join(event["choices"][0]["delta"].get("content", "") for event in events)

    before = metric(server.port, "batches_total")
    with ThreadPoolExecutor(len(documents)) as clients:
        answers = list(clients.map(said, documents))
    assert metric(server.port, "batches_total") - before < len(documents)
    assert answers == [said(document) for document in documents]
    for document, answer in zip(documents, answers, strict=True):
        if "decoder" not in document:
            draw = Drawing(4, 0.7) if "seed" in document else None
            question = document["messages"][0]["content"]
            assert answer == alone(engine, question, vector=document["steer"] * tone, draw=draw)


def leave(port: int, document: dict[str, Any], *, after: int) -> None:
    """Ask, read so many bytes, and hang up."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/chat/completions", json.dumps(document), {"Content-Type": "application/json"})
    if after:
        connection.getresponse().read(after)
    assert connection.sock is not None
    connection.sock.close()
    connection.close()


def test_clients_that_vanish_leave_no_work(engine: Engine) -> None:
    document = chat(QUESTIONS[0], max_tokens=400, temperature=1, seed=3)
    with serving(engine, batch=4) as server:
        with ThreadPoolExecutor(16) as clients:
            for number in range(16):
                streamed = document | {"stream": number % 2 == 0, "seed": number}
                clients.submit(leave, server.port, streamed, after=10 * streamed["stream"])
        until = time.monotonic() + 20
        while metric(server.port, "answers_total") < 16 and time.monotonic() < until:
            time.sleep(0.02)
        assert metric(server.port, "waiting") == metric(server.port, "running") == 0
        assert metric(server.port, "generated_tokens_total") < 16 * 400 / 2
        assert ask(server.port, "/v1/chat/completions", chat("Why?"))[0] == 200


def test_too_many_are_told_to_come_back(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    held, running = threading.Event(), threading.Event()

    def hold(rows: Any) -> None:
        running.set()
        held.wait()
        for row in rows:
            row.end("stop")

    monkeypatch.setattr(engine, "answer", hold)
    with serving(engine, waiting=2, batch=1) as server, ThreadPoolExecutor(4) as clients:
        path, document = "/v1/chat/completions", chat("Why?")
        first = clients.submit(ask, server.port, path, document)
        running.wait()
        status, answer = ask(server.port, path, document | {"n": 3})
        assert (status, answer["error"]["type"]) == (503, "server_error")
        assert "requests are waiting already" in answer["error"]["message"]
        assert metric(server.port, "waiting") == 0
        held.set()
        assert first.result()[0] == 200


def test_stopping_tells_who_waits(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    running = threading.Event()

    def hold(rows: Any) -> None:
        running.set()
        while not all([row.check() for row in rows]):  # noqa: C419  # each is to look
            time.sleep(0.01)

    monkeypatch.setattr(engine, "answer", hold)
    with ThreadPoolExecutor(2) as clients:
        with serving(engine, batch=1) as server:
            asked = [clients.submit(ask, server.port, "/v1/chat/completions", chat("Why?")) for _ in range(2)]
            running.wait()
            while metric(server.port, "waiting") < 1:
                time.sleep(0.01)
        assert [one.result()[1]["error"]["message"] for one in asked] == 2 * ["truthkit is stopping."]


def test_the_key_and_the_guards(engine: Engine) -> None:
    with serving(engine, key="secret") as server:
        status, answer = ask(server.port, "/v1/models")
        assert (status, answer["error"]["type"]) == (401, "authentication_error")
        assert ask(server.port, "/v1/models", Authorization="Bearer secret", Host="models.example")[0] == 200
        assert ask(server.port, "/health") == (200, {"status": "ok"})
        assert [ask(server.port, path)[0] for path in ("/metrics", "/load_model", "/v1/nothing")] == [401, 401, 401]
    with serving(engine) as server:
        assert ask(server.port, "/v1/models", Host="evil.example")[0] == 403
        assert ask(server.port, "/v1/models", Origin="http://evil.example")[0] == 403
        assert ask(server.port, "/load_model", {"model": "toy"}) == (
            200,
            'data: {"status": "ready", "cached": true}\n\n',
        )


def test_metrics_are_prometheus_text(server: Server) -> None:
    """By the grammar of its exposition format: a help, a type, then samples, of each metric."""
    status, text = ask(server.port, "/metrics")
    assert status == 200
    known = ""
    for line in text.splitlines():
        if line.startswith("# "):
            matched = re.fullmatch(r"# (HELP|TYPE) (\w+) (.+)", line)
            assert matched
            known = matched[2]
            assert matched[1] == "HELP" or matched[3] in ("counter", "gauge")
        else:
            assert re.fullmatch(rf'{known}(\{{\w+="[^"\\]*"(,\w+="[^"\\]*")*\}})? [0-9.e+]+', line), line


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=20) | DOCUMENT.map(lambda one: json.dumps(one, default=str).encode()))
def test_whatever_body_comes_no_traceback(server: Server, capfd: pytest.CaptureFixture[str], body: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/completions"):
        status, answer = ask(server.port, path, body)
        assert status in (200, 400, 404, 413), answer
        if status != 200:
            assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture(scope="session")
def scenes() -> Engine:
    model, processor = tk.load("scene-vlm")
    return Engine(model, processor, "scene-vlm", decoder=parse_spec("vcd"))


def test_a_vision_towers_strengths_share_no_batch(scenes: Engine, tmp_path: Path) -> None:
    model, processor = scenes.model, scenes.processor
    width = model.config.vision_config.hidden_size
    vector = VisionVector({0: torch.randn(width, generator=torch.Generator().manual_seed(1))})
    vector.save(tmp_path / "eyes.safetensors")
    spec = parse_steer(str(tmp_path / "eyes.safetensors:0"))
    engine = Engine(model, processor, "scene-vlm", decoder=parse_spec("greedy"), steers=[spec])
    reader = Reader(engine.offer, processor, engine.image_token)
    messages = with_image(data_url((32, 32)))
    asked = [{"messages": messages, "max_tokens": 8, "steer": strength, "logprobs": True} for strength in (0, 0.9, 0.9)]
    wishes = [reader.chat(one).wishes[0] for one in asked]
    kinds = [engine.kind(wish) for wish in wishes]
    assert kinds[0] != kinds[1] == kinds[2]
    heard = [Heard() for _ in wishes]
    for wish, one in zip(wishes, heard, strict=True):
        engine.answer([Row(wish, engine.tokenizer, engine.ends, one, lambda: False, lambda: False)])
    assert heard[0].scored != heard[1].scored == heard[2].scored


def test_images_come_inside(scenes: Engine) -> None:
    openai = pytest.importorskip("openai", reason="the openai package is not installed")
    images = [render(sample_scene(random.Random(seed), bias=0.0), size=size) for seed, size in ((1, 64), (2, 96))]
    model, processor = scenes.model, scenes.processor
    expected = []
    for image in images:
        text = processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image"}]}],
            add_generation_prompt=True,
            tokenize=False,
        )
        inputs = processor(images=[image], text=text, return_tensors="pt", add_special_tokens=False)
        with tk.VCD(model):
            made = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        expected.append(processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    def url(image: Image.Image) -> str:
        stream = io.BytesIO()
        image.save(stream, "PNG")
        return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()

    with serving(scenes) as server, openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:

        def said(address: str) -> str:
            made = client.chat.completions.create(model="scene-vlm", messages=with_image(address), max_tokens=8)
            return str(made.choices[0].message.content)

        with ThreadPoolExecutor(2) as clients:
            assert list(clients.map(said, map(url, images))) == expected
        for wrong in ("http://127.0.0.1/x.png", "file:///etc/passwd", "data:image/png,abc", "data:x;base64,AAAA"):
            with pytest.raises(openai.BadRequestError, match="image"):
                said(wrong)
        with pytest.raises(openai.BadRequestError, match="'vcd' compares images; add one"):
            client.chat.completions.create(model="scene-vlm", messages=chat("What?")["messages"])
