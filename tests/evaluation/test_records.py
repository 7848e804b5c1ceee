"""A run's folder: nothing lost, nothing doubled, and no mixing of runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import truthkit as tk
from truthkit.evaluation.records import Records, content_key, file_sha256, write_atomically

CONFIG = {"task": "pope", "model": "m", "seed": 0}


def test_goes_on_where_it_was(tmp_path: Path) -> None:
    first = Records(tmp_path, CONFIG)
    first.append([{"key": "a", "output": "Yes"}, {"key": "b", "output": "Nein, „gar nicht“"}])
    again = Records(tmp_path, CONFIG)
    assert list(again.done) == ["a", "b"]
    again.append([{"key": "c", "output": ""}])
    assert [json.loads(line)["key"] for line in (tmp_path / "records.jsonl").read_text().splitlines()] == list("abc")


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_a_torn_line_is_dropped(tmp_path: Path, cut: int) -> None:
    Records(tmp_path, CONFIG).append([{"key": "a", "output": "Yes"}, {"key": "b", "output": "No"}])
    path = tmp_path / "records.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    records = Records(tmp_path, CONFIG)
    assert list(records.done) == (["a"] if cut <= len(whole.splitlines()[1]) + 1 else [])
    records.append([{"key": "b", "output": "No"}])
    assert list(Records(tmp_path, CONFIG).done)[-1] == "b"
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_processes_have_files_of_their_own(tmp_path: Path) -> None:
    zero, one = Records(tmp_path, CONFIG), Records(tmp_path, CONFIG, rank=1)
    zero.append([{"key": "a"}])
    one.append([{"key": "b"}])
    zero.reread()
    assert set(zero.done) == {"a", "b"} == set(Records(tmp_path, CONFIG).done)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    Records(tmp_path, CONFIG)
    with pytest.raises(tk.ArgumentError, match=r"other settings: beta was None and is 0\.1; seed was 0 and is 1"):
        Records(tmp_path, {**CONFIG, "seed": 1, "beta": 0.1})


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """A process that appends as fast as it can is killed; what it said was written is there."""
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from truthkit.evaluation.records import Records
        records = Records(Path(sys.argv[1]), {})
        for i in range(10**6):
            records.append([{"key": str(i), "output": "x" * 5000}])
            print(i, flush=True)
    """)
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    done = Records(tmp_path, {}).done
    assert {str(i) for i in said} <= set(done)
    assert all(len(record["output"]) == 5000 for record in done.values())


def test_keys_and_checksums(tmp_path: Path) -> None:
    assert content_key("a", ["b"], {"x": 1, "y": 2}) == content_key("a", ["b"], {"y": 2, "x": 1})
    assert content_key("a", "b") != content_key("ab")
    write_atomically(tmp_path / "a.json", {"x": "ü"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"x": "ü"}
    before = file_sha256(tmp_path)
    (tmp_path / "b.json").write_text("{}")
    assert file_sha256(tmp_path) != before
