"""The recipe of detectors and the gate. Oracle: scenes drawn again, captions generated one by one and counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import truthkit as tk
from recipes import detect as recipe
from truthkit.evaluation.tasks.detect.data import read_questions
from truthkit.scenes import CAPTION_PROMPT, held_out, mentions, render
from truthkit.text.encode import encode_prompt


def test_scenes_are_written_as_the_benchmark_reads_them(tmp_path: Path) -> None:
    recipe.write_scenes(tmp_path, 3, seed=5)
    form, questions = read_questions(tmp_path / "scenes.jsonl")
    assert form == "captions"
    assert [one.objects for one in questions] == [frozenset(scene.names) for scene in held_out(3, 5)]
    assert all(one.image and Path(one.image).is_file() for one in questions)


def test_curves_of_runs_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    summary = {"config": {"method": "p_true", "risk_coverage": [[0.5, 0.1], [1.0, 0.3]]}, "metrics": {"base_rate": 0.3}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    recipe.main(["plot", str(tmp_path), "--out", str(tmp_path / "curves.png")])
    assert (tmp_path / "curves.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_gate_on_captions() -> None:
    rows = {row["name"]: row for row in recipe.captions(6, 0)}
    model, processor = tk.load("scene-vlm")
    named = invented = 0
    for scene in held_out(6, 0):
        inputs = encode_prompt(processor, CAPTION_PROMPT, images=[render(scene, 64)])
        ids = model.generate(**inputs, max_new_tokens=64, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        said = set(mentions(processor.tokenizer.decode(ids, skip_special_tokens=True)))
        named, invented = named + len(said), invented + len(said - set(scene.names))
    assert rows["greedy"]["invented"] == pytest.approx(invented / named)
    assert 0 < rows["when entropy > 1"]["share"] <= rows["when entropy > 0.25"]["share"] < 1
