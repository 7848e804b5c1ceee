"""Benchmarks from the command line: resumed, limited, compared, on real data."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from tests.conftest import ROOT
from truthkit import cli
from truthkit.evaluation.report.compare import compare, read_run


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`truthkit ...` in this process, each model loaded once: exit code, stdout, stderr."""
    known: dict[Any, Any] = {}
    load = tk.load

    def cached(name: Any = None, **_options: Any) -> Any:
        if name not in known:
            known[name] = load(name)
        return known[name]

    monkeypatch.setattr("truthkit.models.load", cached)

    def run(*argv: object) -> tuple[int, str, str]:
        code = cli.main([str(arg) for arg in argv])
        return code, *capsys.readouterr()

    return run


def test_truthfulqa_resumed_and_compared(command: Any, shared_data: Path, tmp_path: Path) -> None:
    data = shared_data / "data" / "truthfulqa" / "v0" / "mc_task.json"
    common = ("eval", "truthfulqa", "--data", data, "--limit", 3, "--decoder", "dola:beta=0", "--controls")
    assert command(*common, "--out", tmp_path / "a")[0] == 0
    path = tmp_path / "a" / "decoder" / "records.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:2]) + "\n" + lines[2][:40])
    before = json.loads((path.parent / "summary.json").read_text())
    (path.parent / "summary.json").unlink()
    assert command(*common, "--out", tmp_path / "a")[0] == 0
    after = json.loads((path.parent / "summary.json").read_text())
    assert after["metrics"] == pytest.approx(before["metrics"], rel=1e-6)  # read in another batch
    assert len(path.read_text().splitlines()) == 3
    assert after["provenance"]["data_sha256"] == {"mc_task.json": hashlib.sha256(data.read_bytes()).hexdigest()}
    greedy, dola = (read_run(tmp_path / "a" / name) for name in ("greedy", "decoder"))
    change = compare(greedy, dola).changes["mc2"]
    difference = dola.summary["metrics"]["mc2"] - greedy.summary["metrics"]["mc2"]
    assert change.value == pytest.approx(difference)
    code, out, _ = command("compare", tmp_path / "a" / "greedy", tmp_path / "a" / "decoder")
    assert code == 0
    assert "McNemar" in out


def test_pope_on_photographs(command: Any, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "data" / "coco256"
    common = ("eval", "pope", "--model", "scene-vlm", "--data", folder / "mini_pope_random.json")
    options = ("--images", folder / "images", "--limit", 6, "--decoder", "ritual", "--sample", "--controls")
    code, out, _ = command(*common, *options, "--batch-size", 4, "--out", tmp_path / "a")
    assert code == 0
    for label in ("pope, ritual, sampled at 1:", "pope, greedy:", "pope, sampling at 1:", "pope, sampling at 0.25:"):
        assert label in out
    assert "pope, apc:beta=0.1, sampled at 1:" in out
    assert command(*common, *options, "--batch-size", 2, "--out", tmp_path / "b")[0] == 0
    names = {"decoder", "greedy", "sampling", "sampling-cooler", "constraint-alone"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == names
    for name in names:
        one, other = (read_run(tmp_path / run / name) for run in "ab")
        assert [item["output"] for item in one.items] == [item["output"] for item in other.items]
        assert set(one.summary["metrics"]) >= {"accuracy", "precision", "recall", "f1", "yes_ratio"}
    config = read_run(tmp_path / "a" / "sampling-cooler").summary["config"]
    assert (config["temperature"], config["decoder"]) == (0.25, "greedy")


def test_chair_on_photographs(command: Any, shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("nltk", reason="the extra eval is not installed")
    code, out, err = command(
        "eval", "chair", "--model", "scene-vlm", "--data", shared_data / "data" / "chair", "--images",
        shared_data / "data" / "coco256" / "images", "--limit", 4, "--max-new-tokens", 12, "--out", tmp_path,
    )  # fmt: skip
    assert code == 0, err
    assert "chair_s" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("pope", "--data", "questions.json"), "pass their folder with --images"),
        (("pope", "--data", "questions.json", "--images", "none"), "--images is none, which is no folder"),
        (("pope", "--data", "questions.json", "--images", "."), "has no image a.jpg"),
        (("truthfulqa", "--data", "none.json"), "--data is 'none.json': there is no such file or folder"),
        (("truthfulqa", "--data", "none.json", "--images", "."), "--images is no option of truthfulqa"),
        (("truthfulqa", "--data", "none.json", "--limit", "0"), "--limit is 0"),
        (("truthfulqa", "--data", "none.json", "--temperature", "0"), "--temperature is 0.0; expected a number above"),
        (("truthfulqa", "--data", "none.json", "--top-p", "2"), "--top-p is 2.0"),
        (("truthfulqa", "--data", "none.json", "--protocol", "author"), "did you mean 'authors'"),
        (("truthfulqa", "--data", "none.json", "--decoder", "dolla"), "did you mean 'dola'"),
        (("truthfulqa", "--data", "none.json", "--amateur", "x"), "--amateur is for decoders"),
    ],
)
def test_bad_input(
    argv: tuple[str, ...], message: str, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("questions.json").write_text(
        '{"question_id": 1, "image": "a.jpg", "text": "Is there a dog?", "label": "no"}\n'
    )
    code, _, err = command("eval", *argv, "--out", "out")
    assert code in (1, 2)
    assert message in err
    assert not Path("out").exists()


MISTAKES = [
    ("eval", "vqa", "--data", "q.json", "--out", "x"),
    ("eval", "pope", "--data", "q.json", "--parser", "offical", "--out", "x"),
    ("eval", "pope", "--data", "q.json", "--batch-size", "0", "--out", "x"),
    ("eval", "pope", "--data", "q.json", "--out", "q.json/x"),
    ("eval", "pope", "--data", "q.json", "--decoder", "dolla", "--out", "x"),
    ("eval", "pope", "--data", "q.json", "--decoder", "vcd:alfa=1", "--controls", "--out", "x"),
    ("eval", "pope", "--data", "q.json", "--steer", "v.safetensors:strong", "--out", "x"),
    ("eval", "pope", "--data", "q.json", "--adapter", "./none", "--out", "x"),
    ("eval", "truthfulqa", "--data", "none.json", "--out", "x"),
    ("eval", "factcheck", "--data", "none.json", "--out", "x"),
    ("score", "pope", "none.jsonl", "--data", "q.json"),
    ("score", "pope", "q.json", "--data", "q.json", "--parser", "offical"),
    ("compare", "none", "none"),
    ("report", "none", "--out", "r.html"),
    ("report", ".", "--out", "none/r.html"),
    ("pope", "none.jsonl", "--out", "x"),
    ("pope", "q.json", "--out", "q.json/x"),
]


def test_mistakes_are_found_without_torch(tmp_path: Path) -> None:
    """In under a second each, all in one process."""
    (tmp_path / "q.json").write_text('{"question_id": 1, "image": "a.jpg", "text": "Is it?", "label": "no"}\n')
    code = """
import json, sys, time
from truthkit import cli
for argv in json.loads(sys.argv[1]):
    print("$", *argv, file=sys.stderr)
    before = time.process_time()
    assert cli.main(argv) in (1, 2)
    assert time.process_time() - before < 1
    assert "torch" not in sys.modules
"""
    command = [sys.executable, "-c", code, json.dumps(MISTAKES)]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for said in done.stderr.split("$")[1:]:
        assert "error: " in said
    assert not (tmp_path / "x").exists()


def test_compare_wants_finished_runs_of_one_task(tmp_path: Path) -> None:
    with pytest.raises(tk.NotAvailableError, match=r"no finished run: there is no summary\.json"):
        read_run(tmp_path)
