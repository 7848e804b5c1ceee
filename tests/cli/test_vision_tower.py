"""Directions of a vision tower on the command line: `truthkit extract --images`, and `--steer` with their file."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import truthkit as tk
from truthkit import cli
from truthkit.scenes.render import render
from truthkit.scenes.scene import sample_scene
from truthkit.text.encode import encode_prompt


def test_the_vision_tower(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Directions from images; answers steered by them as in Python; what does not go with them."""
    picture, out = tmp_path / "scene.png", str(tmp_path / "vision.safetensors")
    scene = render(sample_scene(random.Random(0), bias=0.0), size=128)
    scene.save(picture)
    extracting = ["extract", "--images", str(picture), "--model", "scene-vlm", "--out", out]
    assert cli.main(extracting) == 0
    assert capsys.readouterr().out.endswith("directions of 4 blocks of the vision tower, images read: 1\n")
    asking = ["generate", "Describe the picture.", "--model", "scene-vlm", "--image", str(picture), "--json"]
    assert cli.main([*asking, "--decoder", "greedy", "--steer", f"{out}:2"]) == 0
    answer = json.loads(capsys.readouterr().out)["prompts"][0]["answers"][0]
    model, processor = tk.load("scene-vlm")
    inputs = encode_prompt(processor, "Describe the picture.", images=[scene])
    with tk.VisionSteering(model, tk.VisionVector.load(out), strength=2.0):
        expected = model.generate(**inputs, max_new_tokens=64, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert answer["text"] == processor.tokenizer.decode(expected, skip_special_tokens=True)
    for arguments, message in (
        ([*extracting, "--layers", "1"], "without --layers"),
        ([*extracting[:2], "none.png", *extracting[3:]], "no such file"),
        ([*asking, "--steer", f"{out}:1,mode=add"], "leave out mode"),
        ([*asking, "--steer", f"{out}:1,layers=9"], "9"),
    ):
        assert cli.main(arguments) in (1, 2)
        assert message in capsys.readouterr().err
