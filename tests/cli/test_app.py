"""`truthkit app` from start to Ctrl-C."""

from __future__ import annotations

import http.client
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
            assert connection.getresponse().status == 200
            connection.close()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "truthkit app: stopped\n")


def test_a_port_in_use_is_told_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main(["app", "--model", "no/such-model", "--port", str(port)]) == cli.EXIT_BAD_ARGUMENTS
    assert "Port 0 takes a free one" in capsys.readouterr().err
