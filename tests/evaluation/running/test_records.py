"""A run's folder: nothing lost, nothing doubled, and no mixing of runs."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import truthkit as tk
from truthkit.evaluation.running import progress
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.records import Records
from truthkit.files.writing import content_key, file_sha256, write_atomically

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


@pytest.mark.parametrize("damage", ["", "not JSON", '{"key": "b", "out', "[1]", '"b"', "{}", "null", "\ufffd\ud800"])
def test_a_damaged_line_is_done_again(tmp_path: Path, damage: str) -> None:
    Records(tmp_path, CONFIG).append([{"key": key, "output": "Yes"} for key in "abc"])
    path = tmp_path / "records.jsonl"
    whole = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([whole[0], damage.encode("utf-8", "surrogatepass"), *whole[2:]]))
    records = Records(tmp_path, CONFIG)
    assert list(records.done) == ["a", "c"]
    records.append([{"key": "b", "output": "No"}])
    assert Records(tmp_path, CONFIG).done["b"]["output"] == "No"


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_damaged_settings(tmp_path: Path, text: str) -> None:
    Records(tmp_path, CONFIG)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(tk.ArgumentError, match=r"config\.json"):
        Records(tmp_path, CONFIG)


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """A process that may not write more than 4 kB to a file stops with one line; another one goes on."""
    script = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from truthkit.errors import NotAvailableError
        from truthkit.evaluation.running.records import Records, write_atomically
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        records = Records(Path(sys.argv[1]), {})
        try:
            for i in range(100):
                records.append([{"key": str(i), "output": "x" * 500}])
        except NotAvailableError as error:
            print(i, error)
        try:
            write_atomically(Path(sys.argv[1]) / "summary.json", {"x": "x" * 5000})
        except NotAvailableError as error:
            print(error)
    """)
    process = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    first, second = process.stdout.splitlines()
    assert "records.jsonl cannot be written: File too large. Once it can, run the same command again" in first
    assert "summary.json cannot be written" in second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "records.jsonl"]
    records = Records(tmp_path, {})
    assert list(records.done) == [str(i) for i in range(int(first.split()[0]))]
    records.append([{"key": "next", "output": ""}])
    assert "next" in Records(tmp_path, {}).done


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(tk.NotAvailableError, match="cannot be written: Not a directory"):
        Records(tmp_path / "file" / "run", CONFIG)


def test_processes_have_files_of_their_own(tmp_path: Path) -> None:
    zero, one = Records(tmp_path, CONFIG), Records(tmp_path, CONFIG, rank=1)
    zero.append([{"key": "a", "output": ""}])
    one.append([{"key": "b", "output": ""}])
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
        from truthkit.evaluation.running.records import Records
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


def test_results_are_said_once_there_are_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, where they are asked for after every batch, the empty one before the first included."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    records, items = Records(tmp_path, CONFIG), [Item("0", "a")]
    with progress.Progress("pope", [items], records, 0, lambda: f"f1 {1 / len(records.done):.3f}", shown=True) as bar:
        bar.done(0)
        records.append([{"key": items[0].key, "output": ""}])
        bar.done(1)
    said = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "0/1" in said
    assert "f1 1.000" in said


def test_who_is_waited_for_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Process 1 has stopped with two of its items to do; it comes back with one, and then with the other."""
    monkeypatch.setattr(progress, "_FIRST_WORD", 0.0)
    monkeypatch.setattr(progress, "_WORDS", 0.0)
    mine, other = Records(tmp_path, CONFIG), Records(tmp_path, CONFIG, rank=1)
    shares = [[Item("0", "a")], [Item("1", "b"), Item("2", "c")]]
    mine.append([{"key": shares[0][0].key, "output": ""}])
    late = iter(shares[1])
    monkeypatch.setattr("time.sleep", lambda _s: other.append([{"key": next(late).key, "output": ""}]))
    with progress.Progress("pope", shares, mine, 0, str, shown=True) as bar:
        bar.wait()
    said = [line for line in capsys.readouterr().err.splitlines() if "still" in line]
    assert [line.split(" of process 1 ")[0][-7:] for line in said] == ["2 items", " 1 item"]
    assert all("which is not running: start it again" in line for line in said)
