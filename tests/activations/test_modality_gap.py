"""The gap of images and captions. Oracle: the definitions in numpy, of states that transformers itself hands out."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import truthkit as tk
from tests.tiny import tiny
from tests.tiny_vlm import picture, tiny_vlm
from tests.training.toys import chat_tokenizer
from truthkit import cli
from truthkit.activations import modality_gap as room
from truthkit.scenes.questions import caption, held_out
from truthkit.scenes.render import render
from truthkit.text.encode import encode_prompt


def by_hand(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """(pairs, features) each."""
    x, y = ([one / np.linalg.norm(one) for one in rows] for rows in (x, y))
    count = len(x)

    def uniformity(rows: Any) -> float:
        kernels = [np.exp(-2 * np.sum((a - b) ** 2)) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
        return float(np.log(np.mean(kernels)))

    return {
        "gap": float(np.linalg.norm(np.mean(x, axis=0) - np.mean(y, axis=0))),
        "alignment": float(np.mean([np.sum((a - b) ** 2) for a, b in zip(x, y, strict=True)])),
        "alignment_others": float(
            np.mean([np.sum((x[i] - y[j]) ** 2) for i in range(count) for j in range(count) if i != j])
        ),
        "uniformity_images": uniformity(x),
        "uniformity_texts": uniformity(y),
    }


def states_by_hand(model: Any, processor: Any, pairs: list[tuple[Any, str]], layer: int) -> tuple[Any, Any]:
    """Of a block that is not the last: means over image tokens, and over a caption's tokens but the special first."""
    images, texts = [], []
    for image, text in pairs:
        inputs = encode_prompt(processor, "Describe the image.", images=[image])
        ids = processor.tokenizer(text).input_ids
        ids = ids[: -1 if ids[-1] == processor.tokenizer.eos_token_id else None]
        with torch.no_grad():
            seen = model(**inputs, output_hidden_states=True).hidden_states[layer + 1][0]
            read = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[layer + 1][0]
        images.append(seen[inputs["input_ids"][0] == processor.image_token_id].mean(dim=0).numpy())
        texts.append(read[int(ids[0] == processor.tokenizer.bos_token_id) :].mean(dim=0).numpy())
    return np.stack(images), np.stack(texts)


def scene_pairs(count: int) -> list[tuple[Any, str]]:
    draw = random.Random(1)
    return [(render(scene), caption(scene, draw)) for scene in held_out(count)]


def check(model: Any, processor: Any, pairs: list[tuple[Any, str]], found: tk.ModalityGap, layer: int) -> None:
    for name, value in by_hand(*states_by_hand(model, processor, pairs, layer)).items():
        assert found.metrics[layer][name] == pytest.approx(value, abs=1e-5), name


def test_against_the_definitions() -> None:
    model, processor = tk.load("scene-vlm", dtype="float32")
    pairs = scene_pairs(6)
    found = tk.modality_gap(model, processor, pairs, layers=[0, 1], token_budget=40)
    assert list(found.metrics) == list(found.intervals) == [0, 1]
    for layer in (0, 1):
        check(model, processor, pairs, found, layer)
        low, high = found.intervals[layer]["alignment"]
        assert low < found.metrics[layer]["alignment"] < high
    assert found == tk.modality_gap(model, processor, pairs, layers=[1, 0], token_budget=40)


def test_another_family() -> None:
    tiny_model = tiny_vlm("llava")
    pairs = [(picture(40, 30, seed), text) for seed, text in enumerate(["a cat", "two dogs, asleep", "it", "a b c d"])]
    found = tk.modality_gap(tiny_model.model, tiny_model.processor, pairs, layers=[1])
    check(tiny_model.model, tiny_model.processor, pairs, found, 1)


def test_a_gap_that_is_there_and_one_that_is_not() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, generator=draw, dtype=torch.float64)
    y = torch.randn(40, 5, generator=draw, dtype=torch.float64)
    assert room.gap(x, x) == 0
    assert room.gap(x[:1], -3 * x[:1]) == pytest.approx(2)
    assert room.alignment(x, 7 * x) == pytest.approx(0, abs=1e-12)
    expected = by_hand(x.numpy(), y.numpy())
    assert room.uniformity(x) == pytest.approx(expected["uniformity_images"])
    metrics, intervals, p = room._measured(x, y, 0)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert room.gap(x, y) == pytest.approx(expected["gap"])
    assert room.alignment(x, y) == pytest.approx(expected["alignment"])
    assert p > 0.05
    low, high = intervals["gap_random"]
    assert low < expected["gap"] < high
    metrics, _, p = room._measured(x + 1, y - 1, 0)
    assert metrics["gap"] > 3 * metrics["gap_random"]
    assert p < 0.01


def test_coins_by_hand() -> None:
    """Two halves of the same states, drawn by coins: where the pairs are alike, nothing is apart."""
    x = torch.eye(4, dtype=torch.float64)
    metrics, _, p = room._measured(x, x, 0)
    assert metrics["gap"] == metrics["gap_random"] == 0
    assert p == 1


def test_bad_arguments() -> None:
    with pytest.raises(tk.ArgumentError, match="LlamaForCausalLM takes no images"):
        tk.modality_gap(tiny("llama"), chat_tokenizer(), scene_pairs(3))
    model, processor = tk.load("scene-vlm")
    with pytest.raises(tk.ArgumentError, match=r"there are 2 pairs .* three or more"):
        tk.modality_gap(model, processor, scene_pairs(2))
    with pytest.raises(tk.ArgumentError, match="layers contains 99"):
        tk.modality_gap(model, processor, scene_pairs(3), layers=[99])
    with pytest.raises(tk.ArgumentError, match="the caption '' has no tokens"):
        tk.modality_gap(model, processor, [*scene_pairs(2), (render(held_out(1)[0]), "")])


class TestCommand:
    def test_scenes_and_a_file_of_pairs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("matplotlib")
        plot = tmp_path / "gap.png"
        command = ["isotropy", "scene-vlm", "--layers", "0+1", "--limit", "4", "--pairs"]
        assert cli.main([*command, "scenes", "--gap-plot", str(plot)]) == 0
        assert "gap between images and captions in scene-vlm: 4 pairs" in " ".join(capsys.readouterr().out.split())
        assert plot.read_bytes().startswith(b"\x89PNG")

        pairs, lines = scene_pairs(5), []
        for number, (image, text) in enumerate(pairs):
            image.save(tmp_path / f"{number}.png")
            lines.append(json.dumps({"image": f"{number}.png", "caption": text}))
        (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
        assert cli.main([*command, str(tmp_path / "pairs.jsonl"), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["modality_gap"]
        model, processor = tk.load("scene-vlm")
        expected = tk.modality_gap(model, processor, pairs[:4], layers=[0, 1])
        assert found["metrics"]["layer_1"] == pytest.approx(expected.metrics[1])
        assert found["intervals"]["layer_0"]["gap"] == pytest.approx(list(expected.intervals[0]["gap"]))
        assert found["p"]["layer_0"] == expected.p[0]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--pairs", "none.jsonl"], "none.jsonl"),
            (["--pairs", "bad.jsonl"], "no 'text' or 'caption'; its fields are image"),
            (["--pairs", "scenes", "--gap-plot", "x.gif"], "--gap-plot is 'x.gif'"),
            (["--gap-plot", "x.png"], "--gap-plot draws what --pairs measures"),
        ],
    )
    def test_bad_options(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        options: list[str],
        message: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("bad.jsonl").write_text('{"image": "a.png"}\n')
        assert cli.main(["isotropy", "scene-vlm", *options]) in (1, 2)
        assert message in " ".join(capsys.readouterr().err.split())
