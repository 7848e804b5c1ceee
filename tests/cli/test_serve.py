"""`truthkit serve` from start to its end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from truthkit import cli

pytest.importorskip("uvicorn", reason="the extra serve is not installed")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal there")
def test_terminated_it_ends_what_runs_and_says_so(
    smollm2: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, whose signal handler is free, so that nothing is imported again."""
    monkeypatch.setattr("truthkit.models.load", lambda *_args, **_options: smollm2)
    said: list[str] = []
    pieces: list[str] = []

    def ask_and_terminate() -> None:
        text = ""
        while "/v1" not in text:
            time.sleep(0.02)
            text += capsys.readouterr().out
        said.append(text)
        address = urlsplit(text.split()[2])
        connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=30)
        document = {"messages": [{"role": "user", "content": "Count."}], "max_tokens": 4000, "stream": True}
        headers = {"Authorization": "Bearer key", "Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(document), headers)
        answer = connection.getresponse()
        pieces.append(answer.readline().decode())
        os.kill(os.getpid(), signal.SIGTERM)
        pieces.append(answer.read().decode())
        answer.close()
        connection.close()

    thread = threading.Thread(target=ask_and_terminate)
    thread.start()
    code = cli.main(["serve", "--name", "mine", "--decoder", "dola", "--port", "0", "--api-key", "key"])
    thread.join()
    err = capsys.readouterr().err.splitlines()
    assert (code, err[-1]) == (cli.EXIT_TERMINATED, "truthkit: terminated")
    assert "(model mine, decoder dola)" in said[0]
    assert json.loads(pieces[0].removeprefix("data: "))["model"] == "mine"
    assert "truthkit is stopping." in pieces[1]
    assert "[DONE]" not in pieces[1]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--host", "0.0.0.0"], "which other machines reach, and there is no API key; set TRUTHKIT_API_KEY"),
        (["--api-key", "a b"], "the API key has a space"),
        (["--decoder", "dolla"], "did you mean 'dola'"),
        (["--steer", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--batch", "0"], "is '0'; expected 1 to 1024"),
        (["--port", "70000"], "is '70000'; expected 0 to 65535"),
    ],
)
def test_mistakes_are_told_before_a_model_is_loaded(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRUTHKIT_API_KEY", raising=False)
    monkeypatch.setattr("truthkit.models.load", lambda *_args, **_options: pytest.fail("it was loaded"))
    assert cli.main(["serve", *argv]) in (cli.EXIT_FAILED, cli.EXIT_BAD_ARGUMENTS)
    assert message in capsys.readouterr().err
