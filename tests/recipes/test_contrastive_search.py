"""The contrastive-search recipe from end to end, on a tiny model. Oracles: plain `generate`, and a run that stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import truthkit as tk
from recipes import contrastive_search as recipe
from tests.training.toys import chat_folder
from truthkit.activations.passages import PASSAGES
from truthkit.evaluation.tasks.open_ended import scorer as open_ended


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_folder(tmp_path_factory.mktemp("contrastive") / "model", "gpt2")


@pytest.fixture(autouse=True)
def _own_passages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(recipe, "NEWS", tmp_path / "none.csv")


def run(out: Path, folder: Path, *more: str) -> int:
    return recipe.main(["--out", str(out), "--model", str(folder), "--quick", "--limit", "4", "--threads", "1", *more])


def test_the_whole_of_it_and_again(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, folder) == 0
    shown = capsys.readouterr().out
    assert "PAPER: GPT-2-large on WebText" in " ".join(shown.split())
    summary = json.loads((tmp_path / "summary.json").read_text())
    rows = summary["methods"]
    assert list(rows) == [method.label for method in recipe.methods(5, 0.6)] + [recipe.OWN]
    assert rows["greedy"]["paper"] == {"diversity": 5.38, "coherence": -0.58}
    assert rows["greedy"]["metrics"]["coherence"] > rows["nucleus, p 0.95"]["metrics"]["coherence"]

    model, tokenizer = tk.load(folder)
    prompts = [tokenizer(text).input_ids[:32] for text in PASSAGES[:4]]
    inputs = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=32, min_new_tokens=32, do_sample=False)
    texts = tokenizer.batch_decode(output[:, 32:], skip_special_tokens=True)
    assert rows["greedy"]["metrics"]["diversity"] == pytest.approx(open_ended.score(texts).metrics["diversity"])
    for name in ("measures", "isotropy"):
        pytest.importorskip("matplotlib")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000

    # Killed before its last lines were written: they are made again, and nothing else.
    records = (tmp_path / "records.jsonl").read_text().splitlines()
    (tmp_path / "records.jsonl").write_text("\n".join(records[:-5]) + '\n{"key": "torn')
    assert run(tmp_path, folder) == 0
    again = (tmp_path / "records.jsonl").read_text().splitlines()
    assert again[:-5] == records[:-5]
    assert [json.loads(line)["key"] for line in again] == [json.loads(line)["key"] for line in records]
    for label, found in json.loads((tmp_path / "summary.json").read_text())["methods"].items():
        assert found["metrics"] == pytest.approx(rows[label]["metrics"], rel=1e-5)  # other batches round otherwise


def test_another_model_scores(tmp_path: Path, folder: Path) -> None:
    assert run(tmp_path / "out", folder, "--scorer", str(chat_folder(tmp_path / "scorer"))) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert all(row["metrics"]["coherence"] < 0 for row in summary["methods"].values())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--prompt-tokens", "480"], "texts has 512 tokens; lower --prompt-tokens or --new-tokens"),
        (["--texts", "none.txt"], "none.txt"),
        (["--texts", "table.csv"], "table.csv has no column full_prefix"),
        (["--model", "no/where"], "no/where"),
    ],
)
def test_bad_options(
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("table.csv").write_text("text\nsomething\n")
    assert run(tmp_path, folder, *more) == 2
    assert message in " ".join(capsys.readouterr().out.split())


def test_another_run_in_the_folder(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, folder, "--limit", "1") == 0
    assert run(tmp_path, folder, "--limit", "1", "--seed", "1") == 2
    assert "holds a run with other settings: seed was 0 and is 1" in " ".join(capsys.readouterr().out.split())
