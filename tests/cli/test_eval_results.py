"""What `truthkit eval` says of its results: nothing that flatters, and JSON that anyone can read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.models.folders import byte_tokenizer, text_folder
from truthkit import cli


def strict_json(text: str) -> Any:
    """As every parser reads it: no NaN, no Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A folder with a tiny one that reads bytes, and has room for a primer of six questions in them."""
    text_folder(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 2048}))
    byte_tokenizer(eos_token="</s>", pad_token="<pad>").save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def questions(path: Path, count: int = 6) -> str:
    targets = {"Yes.": 1, "No.": 0, "It depends.": 0}
    path.write_text(
        json.dumps([{"question": f"Is it {i}?", "mc1_targets": targets, "mc2_targets": targets} for i in range(count)])
    )
    return str(path)


def test_excluded_choices_are_counted_and_no_wins(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    """A constraint that leaves nothing: the model knows no answer, so none may be right."""
    data, out = questions(tmp_path / "mc_task.json"), tmp_path / "run"
    command = ["eval", "truthfulqa", "--model", model, "--data", data, "--decoder", "apc:beta=1", "--out", str(out)]
    assert cli.main(command) == 0
    assert "multiple choice wants beta=0" in str(recwarn.pop(UserWarning).message)
    said = " ".join(capsys.readouterr().out.split())
    assert "6 questions could not be scored" in said
    summary = strict_json((out / "summary.json").read_text())
    assert summary["metrics"] == {"mc1": 0, "mc2": 0}
    assert summary["config"]["unscored"] == 6
    lines = [strict_json(line) for name in ("records", "items") for line in (out / f"{name}.jsonl").open()]
    assert lines[0]["output"] == [None, None, None]
    assert lines[-1]["log_probs"] == [None, None, None]
    (out / "summary.json").unlink()
    assert cli.main(command) == 0  # from what is on the disk
    assert strict_json((out / "summary.json").read_text())["metrics"] == {"mc1": 0, "mc2": 0}
