"""`truthkit app` from start to Ctrl-C."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
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


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "soon"])
def test_a_time_limit_is_a_time(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["app", "--time-limit", limit]) == cli.EXIT_BAD_ARGUMENTS
    assert "expected a number of seconds above 0." in capsys.readouterr().err


def test_a_port_in_use_is_told_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main(["app", "--model", "no/such-model", "--port", str(port)]) == cli.EXIT_BAD_ARGUMENTS
    assert "Port 0 takes a free one" in capsys.readouterr().err
