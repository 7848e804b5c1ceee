"""The recipe of decoders with context from end to end, on a tiny model. Oracle: figures by hand from the runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import truthkit as tk
from recipes import context as recipe
from tests.evaluation.tasks.test_memotrap import written
from tests.evaluation.tasks.test_tasks import Tokenizer
from tests.tiny import tiny
from truthkit.statistics.intervals import mcnemar


def test_the_whole_of_it_and_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = tiny("llama", max_position_embeddings=1024), Tokenizer()
    monkeypatch.setattr(tk, "load", lambda *_args, **_options: toy)
    nq = tmp_path / "q.jsonl"
    passages = [{"context": f"It is {n} .", "question": f"What is {n}?", "answers": [str(n)]} for n in range(2)]
    nq.write_text("".join(json.dumps(one) + "\n" for one in passages))
    out, data = tmp_path / "out", written(tmp_path / "data")
    command = ["--out", str(out), "--threads", "1", "--limit-nq", "1"]
    command += ["--memotrap", str(data), "--nq", str(nq), "--decoders", "greedy", "cad:alpha=1"]
    assert recipe.main(command) == 0
    shown = capsys.readouterr().out
    assert "MemoTrap" in shown
    tables = {name: json.loads((out / f"{name}.json").read_text()) for name in ("memotrap", "context-qa")}
    assert list(tables["memotrap"]) == ["greedy", "cad:alpha=1"]
    assert list(tables["context-qa"])[2:] == ["greedy, sampled at 1", "greedy, sampled at 0.5"]
    assert tables["context-qa"]["greedy"]["n"]["exact_match"] == 1

    right = {}
    for label, one in tables["memotrap"].items():
        lines = (out / "memotrap" / label / "items.jsonl").read_text().splitlines()
        right[label] = [json.loads(line)["correct"] for line in lines]
        assert one["metrics"]["accuracy"] == pytest.approx(sum(right[label]) / 3)
    before, after = right.values()
    assert tables["memotrap"]["cad:alpha=1"]["mcnemar"] == pytest.approx(mcnemar(before, after).p)

    records = out / "memotrap" / "cad:alpha=1" / "records.jsonl"
    first = records.read_text().splitlines()[0] + "\n"
    records.write_text(first)
    assert recipe.main(command) == 0
    assert records.read_text().startswith(first)
    again = json.loads((out / "memotrap.json").read_text())
    assert again["cad:alpha=1"]["metrics"] == tables["memotrap"]["cad:alpha=1"]["metrics"]


def test_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recipe.main(["--out", str(tmp_path)]) == 2
    assert "there is no data; give --memotrap, --nq or both." in capsys.readouterr().out
