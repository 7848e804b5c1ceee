"""One writer at a time in a folder: a second is told who the first is; a killed one holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import truthkit as tk
from truthkit.files.lock import holder, only_writer

HOLD = """
import sys, time
from pathlib import Path
from truthkit.files.lock import only_writer
with only_writer(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])):
    print("held", flush=True)
    time.sleep(60)
"""


def held_by_another(folder: Path, rank: int = 0, world: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(folder), str(rank), str(world)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.stdout.close()
    return process


def test_a_second_writer_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    process = held_by_another(tmp_path, 1, 2)
    try:
        for rank, world in ((1, 2), (0, 1), (2, 3)):  # the same place, or one of another set of processes
            with (
                pytest.raises(tk.NotAvailableError, match=rf"written by process {process.pid} on .*, since \d{{4}}-"),
                only_writer(tmp_path, rank, world),
            ):
                raise AssertionError
        with only_writer(tmp_path, 0, 2):  # its peer
            assert (
                holder(tmp_path, 0, 2)
                == f"process {os.getpid()} on {os.uname().nodename}, since "
                + ((holder(tmp_path, 0, 2) or "").partition("since ")[2])
            )
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert holder(tmp_path, 1, 2) is None
    with only_writer(tmp_path):
        assert holder(tmp_path) is not None
    assert holder(tmp_path) is None


def test_an_unwritten_holder_is_still_one(tmp_path: Path) -> None:
    """Its disk is full, or it has only just begun."""
    with only_writer(tmp_path):
        (tmp_path / ".locks" / "0-of-1.json").write_text("{")
        with pytest.raises(tk.NotAvailableError, match="another process"), only_writer(tmp_path):
            raise AssertionError
