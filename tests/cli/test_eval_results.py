"""What `truthkit eval` says of its results: nothing that flatters, and JSON that anyone can read."""

from __future__ import annotations

import json
import math
import re
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
    assert lines[0]["output"] == {"log_probs": [None, None, None]}
    assert lines[-1]["log_probs"] == [None, None, None]
    (out / "summary.json").unlink()
    assert cli.main(command) == 0  # from what is on the disk
    assert strict_json((out / "summary.json").read_text())["metrics"] == {"mc1": 0, "mc2": 0}


def test_raw_scores_stand_beside_normalised_ones(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under a contrast, in records, summary, comparison and report; greedy search's are its log-probabilities."""
    data = questions(tmp_path / "mc_task.json")
    folders = {name: str(tmp_path / "runs" / name) for name in ("greedy", "dola")}
    for decoder, name in (("greedy", "greedy"), ("dola:beta=0,layers=0+1", "dola")):
        command = ["eval", "truthfulqa", "--model", model, "--data", data, "--decoder", decoder]
        assert cli.main([*command, "--out", folders[name]]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert ("raw_mc2" in said) == ("Compare each with its own kind" in said) == (name == "dola")
    greedy, dola = (strict_json((tmp_path / "runs" / name / "summary.json").read_text()) for name in folders)
    assert list(greedy["metrics"]) == ["mc1", "mc2"]
    assert dola["units"] == dict.fromkeys(dola["metrics"], "share")
    assert list(dola["metrics"]) == ["mc1", "mc2", "raw_mc1", "raw_mc2"]
    item = strict_json((tmp_path / "runs" / "dola" / "items.jsonl").read_text().partition("\n")[0])
    mass = [math.exp(score - max(item["raw_scores"])) for score in item["raw_scores"]]
    assert item["raw_mc2"] == pytest.approx(mass[0] / sum(mass))
    assert item["raw_scores"] != pytest.approx(item["log_probs"])
    assert cli.main(["score", "truthfulqa", folders["dola"], "--data", data, "--json"]) == 0
    assert strict_json(capsys.readouterr().out)["metrics"] == pytest.approx(dola["metrics"])
    assert cli.main(["compare", folders["greedy"], folders["dola"]]) == 0
    rows = [re.split(r" *[│┃] *", line.strip("│ ")) for line in capsys.readouterr().out.splitlines() if "mc2" in line]
    assert [row[:3] for row in rows] == [
        [name, f"{100 * greedy['metrics']['mc2']:.2f}", f"{100 * dola['metrics'][name]:.2f}"]
        for name in ("mc2", "raw_mc2")
    ]
    assert cli.main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "r.md")]) == 0
    lines = (tmp_path / "r.md").read_text().split("### Every metric")[1].splitlines()
    assert "| MC1, % ↑ | MC2, % ↑ | MC1, raw scores, % ↑ | MC2, raw scores, % ↑ |" in lines[2]
    cells = next(line for line in lines if line.startswith("| greedy")).split("|")
    assert cells[2:4] == cells[4:6]
