"""A run is only gone on with by the very model, adapter, amateur and vector that began it, whatever lies at a path."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.folders import text_folder
from tests.models.hub import serving
from tests.tiny import tiny
from truthkit import cli


@pytest.fixture
def model(tmp_path: Path) -> Path:
    text_folder(tmp_path / "model")
    weights(tmp_path / "model", 0)
    return tmp_path / "model"


def weights(folder: Path, seed: int) -> None:
    """Of a model that has room for the task's examples, one token for each character."""
    with torch.random.fork_rng():
        tiny("llama", seed=seed, eos_token_id=2, max_position_embeddings=4096).save_pretrained(folder)


@pytest.fixture
def run(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """`truthkit eval` on two questions, cut off after the first; exit code and what was said."""
    choices = {"a b.": 1, "c d.": 0}
    questions = [{"question": f"{q}?", "mc1_targets": choices, "mc2_targets": choices} for q in "ab"]
    (tmp_path / "data.json").write_text(json.dumps(questions))

    def command(*options: str) -> tuple[int, str]:
        name = () if "--model" in options else ("--model", str(model))
        where = ("--data", str(tmp_path / "data.json"), "--out", str(tmp_path / "run"))
        code = cli.main(["eval", "truthfulqa", *where, *name, *options])
        if code == 0:
            records = tmp_path / "run" / "records.jsonl"
            records.write_text(records.read_text().partition("\n")[0] + "\n")
        return code, capsys.readouterr().err

    return command


def lora(folder: Path, seed: int) -> str:
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        settings = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
        get_peft_model(tiny("llama", eos_token_id=2), settings).save_pretrained(folder)
    return str(folder)


def settings(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "run" / "config.json").read_text())
    return found


def test_the_same_again_goes_on(run: Any, tmp_path: Path) -> None:
    options = ("--decoder", "icd:beta=0", "--amateur", lora(tmp_path / "a", 1))
    assert run(*options) == (0, "")
    assert run(*options)[0] == 0
    assert all(len(settings(tmp_path)[name]) == 16 for name in ("weights", "tokenizer", "amateur"))


def test_another_amateur(run: Any, tmp_path: Path) -> None:
    options = ("--decoder", "icd:beta=0", "--amateur")
    assert run(*options, lora(tmp_path / "a", 1))[0] == 0
    code, said = run(*options, lora(tmp_path / "b", 2))
    assert code == 2
    assert "holds a run with other settings: amateur was" in said
    lora(tmp_path / "a", 2)
    assert run(*options, str(tmp_path / "a"))[0] == 2


def test_another_model_as_the_amateur(run: Any, model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "amateur")
    options = ("--decoder", "icd:beta=0", "--amateur", str(tmp_path / "amateur"))
    assert run(*options)[0] == 0
    weights(tmp_path / "amateur", 5)
    assert "amateur was" in run(*options)[1]


def test_adapter_and_weights_made_anew(run: Any, model: Path, tmp_path: Path) -> None:
    options = ("--adapter", lora(tmp_path / "a", 1))
    assert run(*options)[0] == 0
    lora(tmp_path / "a", 2)
    assert "adapter was" in run(*options)[1]
    shutil.rmtree(tmp_path / "run")
    assert run()[0] == 0
    weights(model, 5)
    assert "weights was" in run()[1]


def test_a_vector_made_anew(run: Any, tmp_path: Path) -> None:
    from truthkit.steering import SteeringVector

    def made(seed: int) -> str:
        direction = torch.randn(48, generator=torch.Generator().manual_seed(seed))
        SteeringVector({1: direction}, tiny("llama").config.num_hidden_layers, "block", {}).save(
            tmp_path / "v.safetensors"
        )
        return f"{tmp_path / 'v.safetensors'}:1"

    assert run("--steer", made(1))[0] == 0
    assert run("--steer", made(1))[0] == 0
    assert "steering was" in run("--steer", made(2))[1]


def test_main_moves_on_the_hub(run: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = tmp_path / "hub/models/org/m/main"
    shutil.copytree(model, main)
    shutil.copytree(model, main.with_name("v1"))
    with serving(tmp_path / "hub", monkeypatch, tmp_path / "cache") as hub:
        assert run("--model", "org/m")[0] == 0
        commit = hub.commit("org/m")
        assert settings(tmp_path)["revision"] == commit
        weights(main, 5)
        code, said = run("--model", "org/m")
        assert code == 2
        assert f"revision was {commit!r} and is {hub.commit('org/m')!r}" in said
        assert run("--model", "org/m", "--revision", commit)[0] == 0
        assert run("--model", "org/m", "--revision", "v1")[0] == 0


def test_an_amateur_on_the_hub_is_asked_for_once(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lora(tmp_path / "hub/models/org/a/main", 1)
    with serving(tmp_path / "hub", monkeypatch, tmp_path / "cache") as hub:
        assert run("--decoder", "icd:beta=0", "--amateur", "org/a")[0] == 0
        assert [line for line in hub.asked if "/api/" in line] == ["GET /api/models/org/a/revision/main"]
        first = hub.commit("org/a")
        lora(tmp_path / "hub/models/org/a/main", 2)
        assert "amateur was" in run("--decoder", "icd:beta=0", "--amateur", "org/a")[1]
        assert run("--decoder", "icd:beta=0", "--amateur", f"org/a@{first}")[0] == 0
