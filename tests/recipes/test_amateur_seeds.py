"""What the shipped amateur's recipes do, on a tiny model. Oracle of the scores: the decoders, in whole forwards."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import truthkit as tk
from recipes import amateur, amateur_seeds
from tests.decoding.oracle import save_adapter
from tests.tiny import tiny
from tests.training.toys import chat_tokenizer, halueval
from truthkit.models import identity
from truthkit.training.amateur import train_amateur
from truthkit.training.settings import TrainingSettings


def test_methods_are_scored_as_the_decoders_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny("llama", eos_token_id=2, max_position_embeddings=2048)
    model.save_pretrained(tmp_path / "model")
    chat_tokenizer().save_pretrained(tmp_path / "model")
    adapters = [save_adapter(tk.load(tmp_path / "model")[0], tmp_path / str(seed), seed=seed) for seed in range(3)]
    targets = {"mc1_targets": {"Yes, it is": 1, "No": 0}, "mc2_targets": {"Yes, it is": 1, "Yes": 1, "No, no": 0}}
    tasks = [{"question": f"Is {n} a number?", **targets} for n in range(4)]
    (tmp_path / "mc_task.json").write_text(json.dumps(tasks))
    (tmp_path / "qa.json").write_text(json.dumps([{"question": "IS 2 a number", "hallucinated_answer": "No"}]))
    command = ["x", "--out", str(tmp_path / "out"), "--amateurs", *adapters[:2], "--control", adapters[2]]
    command += ["--data", str(tmp_path / "mc_task.json"), "--halueval", str(tmp_path / "qa.json")]
    monkeypatch.setattr(sys, "argv", [*command, "--model", str(tmp_path / "model")])
    amateur_seeds.main()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["questions"] == 3, "one was trained on"
    assert summary["disagreement"] < 1e-3
    assert list(summary["forms"]["raw"]) == [
        amateur_seeds.BASE,
        "ICD, seed 0",
        "ICD, seed 1",
        amateur_seeds.CONTROL,
        amateur_seeds.PROMPT,
        "LOL, seed 0",
    ]
    records = (tmp_path / "out" / "records.jsonl").read_text()
    shown = capsys.readouterr().out
    amateur_seeds.main()
    assert (tmp_path / "out" / "records.jsonl").read_text() == records
    assert capsys.readouterr().out == shown


def test_what_is_shipped_is_half_as_large_and_names_no_place(tmp_path: Path) -> None:
    model = tiny("llama", eos_token_id=2)
    settings = TrainingSettings(steps=2, rank=2)
    train_amateur(model, chat_tokenizer(), [halueval(tmp_path / "qa.json", 6)], tmp_path / "a", settings=settings)
    amateur.ship(model, tmp_path / "a", tmp_path / "shipped")
    before, after = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("a", "shipped"))
    assert before.keys() == after.keys()
    assert all(after[name].equal(value.half()) for name, value in before.items())
    assert str(tmp_path) not in "".join(
        file.read_text() for file in (tmp_path / "shipped").iterdir() if file.suffix != ".safetensors"
    )
    base = json.loads((tmp_path / "shipped" / "base.json").read_text())
    assert base["sizes"]["num_hidden_layers"] == model.config.num_hidden_layers
    assert base["weights_sha256"]["float32"] == identity(model)["weights_sha256"]
    assert base["weights_sha256"]["bfloat16"] == identity(model.bfloat16())["weights_sha256"]
