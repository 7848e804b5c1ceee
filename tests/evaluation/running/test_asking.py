"""Items under decoders: scores of choices by an independent loop, resumed runs, memory that does not suffice."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from truthkit.decoding.spec import parse_spec
from truthkit.errors import ArgumentError
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.records import Records
from truthkit.scenes.render import render
from truthkit.scenes.scene import sample_scene

QUESTIONS = ["What is the capital of France?", "Who wrote Faust?", "How many legs has a spider, and how many an ant?"]


def ask(smollm2: Any, decoder: str = "greedy", **options: Any) -> Asking:
    return Asking(*smollm2, parse_spec(decoder), {}, **options)


@pytest.mark.parametrize("decoder", ["greedy", "dola:beta=0,layers=14+20", "icd:beta=0,amateur_prompt=Lie."])
def test_choices_equal_a_plain_loop(smollm2: Any, decoder: str) -> None:
    """Oracle: one choice at a time, unpadded, the decoder's forward read by hand."""
    model, tokenizer = smollm2
    items = [
        Item(str(i), f"Q: {question}\nA:", choices=(" Paris", " I have no idea, sorry.", " Goethe"))
        for i, question in enumerate(QUESTIONS)
    ]
    found = ask(smollm2, decoder, batch_size=4).choose(items)
    spec = parse_spec(decoder)
    for item, scores in zip(items[:2], found, strict=False):
        for choice, score in zip(item.choices, scores, strict=True):
            ids = tokenizer(item.prompt + choice, return_tensors="pt").input_ids
            start = len(tokenizer(item.prompt).input_ids)
            with spec.build(model, tokenizer), torch.no_grad():
                log_p = model(input_ids=ids).logits[0].log_softmax(-1)
            expected = sum(float(log_p[i - 1, ids[0, i]]) for i in range(start, ids.shape[1]))
            assert score == pytest.approx(expected, abs=2e-3)


def test_resumed_in_other_batches(smollm2: Any, tmp_path: Path) -> None:
    items = [Item(str(i), question) for i, question in enumerate(QUESTIONS)]
    whole = Records(tmp_path / "whole", {})
    ask(smollm2, max_new_tokens=6, sample=True, batch_size=3).run(items, whole)
    parts = Records(tmp_path / "parts", {})
    ask(smollm2, max_new_tokens=6, sample=True, batch_size=1).run(items[:2], parts)
    seen: list[int] = []
    ask(smollm2, max_new_tokens=6, sample=True, batch_size=2).run(items, Records(tmp_path / "parts", {}), seen.append)
    outputs = [
        {key: record["output"] for key, record in Records(folder, {}).done.items()}
        for folder in (tmp_path / "whole", tmp_path / "parts")
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == len(items)
    assert seen == [2, 1]


def test_halves_the_batch_when_memory_is_short(smollm2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def write(_self: Asking, batch: Sequence[Item], fixed: Any = None) -> list[str]:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return ["x"] * len(batch)

    monkeypatch.setattr(Asking, "write", write)
    records = Records(tmp_path, {})
    ask(smollm2, batch_size=8).run([Item(str(i), "x") for i in range(5)], records)
    assert sizes == [5, 4, 2, 2, 1]
    assert len(records.done) == 5


def test_images_without_an_image_model(smollm2: Any, tmp_path: Path) -> None:
    with pytest.raises(tk.ArgumentError, match="no image file"):
        ask(smollm2).write([Item("0", "What?", images=(str(tmp_path / "none.png"),))])


def test_a_search_answers_questions_about_one_image_as_one_by_one(tmp_path: Path) -> None:
    """What the prompts share is read once for decoders only, whose views can be branched."""
    bench = tk.load("scene-vlm")
    items = []
    for number in range(2):
        path = tmp_path / f"{number}.png"
        render(sample_scene(random.Random(number), bias=0.0), size=128).save(path)
        items += [Item(f"{number}{question}", question, (str(path),)) for question in ("What is this?", "Describe it.")]
    for decoder in ("greedy", "opera:num_beams=2", "contrastive_search:penalty_alpha=0.9,top_k=6"):
        asking = Asking(*bench, parse_spec(decoder), {}, max_new_tokens=6)
        built = asking.decoder.build(*bench)
        assert asking.write(items, built) == [asking.write([item], built)[0] for item in items], decoder


def test_a_search_scores_no_choices(smollm2: Any) -> None:
    for decoder in ("opera", "contrastive_search"):
        with pytest.raises(ArgumentError, match=rf"{decoder} searches for an answer and gives a choice no probability"):
            ask(smollm2, decoder).choose([Item("1", "Q: Why?\nA:", choices=(" So.", " No."))])


def test_the_key_does_not_depend_on_where_images_lie() -> None:
    """So that draws and comparisons are the same on another machine."""
    here, there, other = (Item("1", "Is there a cat?", (path,)) for path in ("a/1.png", "/b/c/1.png", "a/2.png"))
    assert here.key == there.key != other.key
