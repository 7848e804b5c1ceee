"""`truthkit app` from start to Ctrl-C."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import pytest

from truthkit import cli


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is no signal there")
def test_it_says_where_it_is_and_ends_with_ctrl_c() -> None:
    # Tests that run as a shell's background job have Ctrl-C ignored, and so would what they start.
    start = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    start += "from truthkit.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "app", "--model", "scene-vlm", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = urlsplit(line.removeprefix("truthkit app: ").strip())
            assert (address.hostname, address.fragment[:6]) == ("127.0.0.1", "token=")
            connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=30)
            connection.request("GET", "/")
            assert connection.getresponse().read()
            document = {"prompt": "?", "settings": {"max_new_tokens": 400}, "cards": [{"decoder": "greedy"}] * 8}
            headers = {"Authorization": f"Bearer {address.fragment[6:]}", "Content-Type": "application/json"}
            connection.request("POST", "/api/run", json.dumps(document), headers)
            answer = connection.getresponse()
            assert json.loads(answer.readline())["event"] == "answering"
            process.send_signal(signal.SIGINT)
            assert json.loads(answer.read().splitlines()[-1])["cancelled"]
            answer.close()
            connection.close()
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "truthkit app: stopped\n")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal there")
def test_terminated_it_cancels_what_runs_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """In this process, whose signal handler is free, so that nothing is imported again."""
    events: list[dict[str, Any]] = []

    def ask_and_terminate() -> None:
        said = ""
        while "#token=" not in said:
            time.sleep(0.02)
            said += capsys.readouterr().out
        address = urlsplit(said.partition(": ")[2].strip())
        connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=30)
        document = {"prompt": "?", "settings": {"max_new_tokens": 400}, "cards": [{"decoder": "greedy"}] * 8}
        headers = {"Authorization": f"Bearer {address.fragment[6:]}", "Content-Type": "application/json"}
        connection.request("POST", "/api/run", json.dumps(document), headers)
        answer = connection.getresponse()
        events.append(json.loads(answer.readline()))
        os.kill(os.getpid(), signal.SIGTERM)
        events.extend(map(json.loads, answer.read().splitlines()))
        answer.close()
        connection.close()

    thread = threading.Thread(target=ask_and_terminate)
    thread.start()
    code = cli.main(["app", "--model", "scene-vlm", "--port", "0"])
    thread.join()
    assert (code, capsys.readouterr().err) == (cli.EXIT_TERMINATED, "truthkit: terminated\n")
    assert events[-1]["event"] == "end"
    assert events[-1]["cancelled"]


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "soon"])
def test_a_time_limit_is_a_time(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["app", "--time-limit", limit]) == cli.EXIT_BAD_ARGUMENTS
    assert "expected a number of seconds above 0." in capsys.readouterr().err


def test_a_port_in_use_is_told_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main(["app", "--model", "no/such-model", "--port", str(port)]) == cli.EXIT_BAD_ARGUMENTS
    assert "Port 0 takes a free one" in capsys.readouterr().err
