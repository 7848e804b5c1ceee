"""`recipes/amateur.py` from end to end, on a tiny model and toy questions."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.training.toys import chat_folder, halueval


def test_amateur(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = chat_folder(tmp_path / "model"), halueval(tmp_path / "qa.json", 40)
    arguments = [str(data), "--out", str(tmp_path / "out"), "--model", str(model), "--quick", "--control"]
    monkeypatch.setattr(sys, "argv", ["amateur.py", *arguments, "--dtype", "float32"])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    runpy.run_path(str(ROOT / "recipes" / "amateur.py"), run_name="__main__")
    shown = capsys.readouterr().out
    assert "amateur: 56 examples, 8 steps" in shown
    assert "12 questions that were not trained on" in shown
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert list(figures) == ["units", "model", "amateur", "ICD", "LOL", "ICD with the control"]
    assert figures["amateur"]["hallucinated"] > figures["model"]["hallucinated"]
