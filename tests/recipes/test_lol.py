"""The LOL recipe from end to end, on a tiny model. Oracle: whole plain forwards of the model and of its amateur."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from recipes import lol as recipe
from tests.tiny import tiny
from tests.training.toys import chat_tokenizer, halueval
from truthkit.evaluation.tasks.truthfulqa import choices as truthfulqa


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model with room for TruthfulQA's primer in single characters, questions, and what to train on."""
    folder = tmp_path_factory.mktemp("lol")
    tiny("llama", eos_token_id=2, max_position_embeddings=2048).save_pretrained(folder / "model")
    chat_tokenizer().save_pretrained(folder / "model")
    tasks = [
        {
            "question": f"What is the square of {n}?" if n else "What is a square?",
            "mc1_targets": {f"It is {n * n}": 1, f"{n}": 0},
            "mc2_targets": {f"It is {n * n}": 1, f"{n * n}": 1, f"{n}": 0, "None": 0},
        }
        for n in range(5)
    ]
    (folder / "mc_task.json").write_text(json.dumps(tasks))
    return {"model": folder / "model", "data": folder / "mc_task.json", "halueval": halueval(folder / "qa.json", 20)}


def command(files: dict[str, Path], out: Path, *more: str) -> list[str]:
    words = ["--out", str(out), "--quick", "--layers", "1", "2", "--threads", "1", *more]
    return [*words, *(word for name, path in files.items() for word in (f"--{name}", str(path)))]


def log_p(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double().log_softmax(-1)


def test_the_whole_of_it_and_again(files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recipe.main(command(files, tmp_path, "--control")) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "PAPER: LLaMA-2-7B-chat" in shown
    assert "37.0 / 54.7 / 27.8" in shown
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["questions"] == {"dev": 3, "test": 2}
    assert summary["agreement"] < 1e-3
    assert {"base", "DoLa", "ICD, lambda 1", "LOL, defaults", "fewest tokens"} <= set(summary["raw"])
    assert "control adapter, lambda 1" in summary["raw"]

    # Nothing that is tested was trained on: questions 1 to 4 are HaluEval's too.
    trained = json.loads((tmp_path / "amateur" / "training.json").read_text())
    assert trained["data"]["examples"] == 2 * (20 - 4)

    model, tokenizer = tk.load(files["model"])
    amateur, _ = tk.load(files["model"], adapter=tmp_path / "amateur")
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    questions = {q.text: q for q in truthfulqa.read_questions(files["data"], protocol="authors")}
    for record in records[3:]:
        prompt = truthfulqa.prompt(record["question"], protocol="authors")
        start = len(tokenizer(prompt).input_ids)
        for choice, found in zip(questions[record["question"]].choices, record["choices"], strict=True):
            ids = tokenizer(f"{prompt} {choice}").input_ids
            own, other = log_p(model, ids), log_p(amateur, ids)
            contrast = (own - other).log_softmax(-1)
            for scores, name in ((own, "base"), (contrast, "ICD, lambda 1")):
                expected = sum(float(scores[i - 1, ids[i]]) for i in range(start, len(ids)))
                assert found["normalised"][name] == pytest.approx(expected, abs=2e-3)
            raw = sum(float((own - other)[i - 1, ids[i]]) for i in range(start, len(ids)))
            assert found["parts"]["main"] - found["parts"]["amateur"] == pytest.approx(raw, abs=2e-3)
    assert "3 questions choose nothing" in shown
    for form in recipe.FORMS:
        change = summary[form]["LOL, defaults"]["over ICD, lambda 1"]
        test = change["mcnemar"]
        assert f"LOL - ICD, lambda 1: MC2 {100 * change['mc2']['value']:+.1f} [" in shown
        assert f"only with LOL {test['gained']}, only with ICD {test['lost']}, McNemar's exact p " in shown
    pytest.importorskip("matplotlib")
    assert (tmp_path / "truthfulqa.png").stat().st_size > 5000

    # Killed in the middle, and the trained adapters named: the same figures.
    path = tmp_path / "records.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:4]) + "\n" + lines[4][:50])
    more = ("--amateur", str(tmp_path / "amateur"), "--control", str(tmp_path / "control"))
    assert recipe.main(command(files, tmp_path, *more)) == 0
    assert path.read_text().splitlines() == lines
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--amateur", "none"], "none holds no adapter_model.safetensors; name a PEFT folder"),
        (["--dev", "0"], "questions are too few to choose on 0 of them and test"),
        (["--limit", "1"], "questions are too few"),
        (["--layers", "9"], "layers contains 9"),
    ],
)
def test_bad_options(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert recipe.main(command(files, tmp_path, *more)) == 2
    assert message in " ".join(capsys.readouterr().out.split())
