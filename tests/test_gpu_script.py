"""`benchmarks/gpu.py`, tried without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_parts_tables_and_going_on(tmp_path: Path) -> None:
    def run(*options: str) -> subprocess.CompletedProcess[str]:
        line = [
            sys.executable,
            "benchmarks/gpu.py",
            "--device",
            "cpu",
            "--tiny",
            "--dtype",
            "float32",
            "--out",
            tmp_path,
        ]
        line += ["--contexts", "32", "--tokens", "3", "--rounds", "1", "--pairs", "4", "--backend", "eager", *options]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run("--only", "image, batch 1").returncode == 0
    kept = json.loads((tmp_path / "figures.json").read_text())
    assert set(kept["parts"]) == {"image, batch 1, eager", "image, batch 1, compiled"}
    for part in kept["parts"].values():
        assert part["rounds"] == 1
        assert not [way for way in part["ways"].values() if "error" in way]
    again = run("--only", "extraction")
    assert again.returncode == 0
    assert "extract" in again.stdout.partition("text, extraction")[2]
    assert json.loads((tmp_path / "figures.json").read_text())["parts"].keys() > kept["parts"].keys()
    other = run("--only", "image", "--rounds", "1", "--tokens", "4")
    assert other.returncode == 1
    assert "another tokens; give another --out" in other.stderr
    out_of_time = run("--only", "text", "--minutes", "0")
    assert "parts are left; run the same command again" in out_of_time.stdout
