"""The RITUAL recipe from end to end. Oracle: answers one by one by plain `generate`, counted by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import truthkit as tk
from recipes import ritual as recipe
from truthkit.scenes.questions import CAPTION_PROMPT, KINDS, held_out, mentions, questions
from truthkit.scenes.render import render
from truthkit.text.encode import encode_prompt


def test_the_whole_of_it_and_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--out", str(tmp_path), "--quick", "--scenes", "2", "--threads", "1"]
    assert recipe.main(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "PAPER: LLaVA-1.5-7B on COCO" in shown
    assert "nothing about real models" in shown
    summary = json.loads((tmp_path / "summary.json").read_text())
    labels = [way.label for way in recipe.ways(greedy=False)]
    assert list(summary["pope"]) == list(summary["chair"]) == labels
    assert {"RITUAL", "RITUAL+", "VCD", "M3ID", "sampling, temperature 0.25"} <= set(labels)
    assert summary["pope"]["RITUAL"]["paper"] == [88.9, 85.8, 78.8]

    model, processor = tk.load("scene-vlm")
    rng, right, asked, invented, named = random.Random(0), 0, 0, 0, 0

    def answer(text: str, picture: object, count: int) -> str:
        inputs = encode_prompt(processor, text, images=[picture])
        output = model.generate(**inputs, max_new_tokens=count, do_sample=False)
        return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()

    for scene in held_out(2):
        for kind in KINDS:
            for question in questions(scene, rng, kind=kind):
                said = answer(question.text, render(scene), 4).lower()
                right, asked = right + (said.startswith("yes") == question.present), asked + 1
        objects = mentions(answer(CAPTION_PROMPT, render(scene), 48))
        named, invented = named + len(objects), invented + sum(one not in scene.names for one in objects)
    assert summary["pope"]["greedy"]["metrics"]["accuracy"] == pytest.approx(right / asked)
    assert summary["chair"]["greedy"]["metrics"]["chair_i"] == pytest.approx(invented / named)
    pytest.importorskip("matplotlib")
    assert (tmp_path / "comparison.png").stat().st_size > 5000

    # Killed in the middle of a row: what was answered stays, what is drawn anew is the same.
    path = tmp_path / "pope" / "RITUAL" / "records.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:5]) + "\n" + lines[5][:20])
    assert recipe.main(command) == 0
    assert path.read_text().splitlines()[:5] == lines[:5]
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


@pytest.mark.slow
def test_real_benchmarks(tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """POPE's and CHAIR's own files and photographs; the test model's answers to them mean nothing."""
    pytest.importorskip("nltk")
    data = shared_data / "data"
    command = ["--out", str(tmp_path), "--limit", "2", "--images", str(data / "coco256/images"), "--threads", "1"]
    command += ["--pope", str(data / "coco256/mini_pope_random.json"), "--chair", str(data / "chair"), "--greedy"]
    assert recipe.main(command) == 0
    assert "2 items of the benchmark" in " ".join(capsys.readouterr().out.split())
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert len(summary["pope"]) == len(summary["chair"]) == 16


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--pope", "none.json"], "none.json"),
        (["--chair", "none"], "no file 'synonyms.txt'"),
        (["--model", "no/where"], "no/where"),
    ],
)
def test_bad_options(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipe.main(["--out", "out", "--scenes", "1", *more]) == 2
    assert message in " ".join(capsys.readouterr().out.split())
