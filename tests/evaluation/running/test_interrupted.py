"""`truthkit eval` from outside: terminated, twice on one folder, on a full disk. Oracle: a run undisturbed."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.running.test_processes import DAYS, ENVIRONMENT, eval_command, factor, outcome
from truthkit import cli

LIMIT = 60.0
"""Seconds that no resumed run may take: one takes a few."""


def start(arguments: list[str], out: Path, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "truthkit.cli", *eval_command(arguments, out)]
    return subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code, and standard error without bars."""
    _, err = process.communicate(timeout=LIMIT)
    return process.returncode, "\n".join(line for line in err.splitlines() if line.startswith("truthkit"))


def keys(out: Path) -> list[str]:
    path = out / "records.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line)["key"] for line in lines]


def when_records(out: Path, process: subprocess.Popen[str], least: int = 1) -> None:
    until = time.monotonic() + LIMIT
    path = out / "records.jsonl"
    while not (path.exists() and path.read_bytes().count(b"\n") >= least):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


def test_terminated_locked_and_on_a_full_disk(tmp_path: Path) -> None:
    """One folder goes through all of it, and ends as if nothing had happened."""
    arguments, out = factor(tmp_path), tmp_path / "run"
    running = start(arguments, out)
    when_records(out, running)
    running.send_signal(signal.SIGSTOP)  # it holds the folder, however fast the machine is
    code, err = ended(start(arguments, out))
    assert code == 1
    assert f"is being written by process {running.pid} on " in err
    running.terminate()
    running.send_signal(signal.SIGCONT)
    code, err = ended(running)
    assert code == 143
    assert err == "truthkit: terminated; what was finished is kept: run the same command again to go on"
    kept = keys(out)
    assert kept
    assert not (out / "summary.json").exists(), "it was done before it was stopped; give it more to do"

    size = (out / "records.jsonl").stat().st_size
    room = size + size // len(kept) * (DAYS - len(kept)) // 2  # for about half of the rest

    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    code, err = ended(start(arguments, out, preexec_fn=little_room))
    assert code == 1
    assert "records.jsonl cannot be written: File too large. Once it can, run the same command again" in err
    assert len(keys(out)) > len(kept)
    assert cli.main(eval_command(arguments, out)) == 0
    assert cli.main(eval_command(arguments, tmp_path / "whole")) == 0
    assert len(keys(out)) == len(set(keys(out))) == DAYS
    assert outcome(out)[0] == pytest.approx(outcome(tmp_path / "whole")[0])
