"""The recipe of the test model, at a tiny size: what it learns from, and that a stopped run ends in equal weights."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import truthkit as tk
from recipes import scene_vlm as recipe
from truthkit.decoding.methods.ritual_plus import parse_choice
from truthkit.images.transforms import TRANSFORMS
from truthkit.scenes.render import render
from truthkit.scenes.scene import sample_scene

TINY = recipe.Settings(
    batch=(4, 4),
    steps=(3, 4),
    vision={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    text={
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    },
)


@pytest.fixture(scope="module")
def parts() -> tuple[Any, Any]:
    processor = recipe.build_processor(TINY)
    return recipe.build_model(TINY, processor.tokenizer).eval(), processor


def same(one: Any, other: Any) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == again and torch.equal(value, copy) for (name, value), (again, copy) in pairs)


@pytest.mark.parametrize("stopped_in", ["looking", "talking"])
def test_a_stopped_run_ends_in_the_same_weights(
    stopped_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the run that was not stopped."""
    whole, _ = recipe.train(TINY, tmp_path / "whole")
    real = recipe.Trainer.step

    def stopping(self: Any, number: int, batch: dict[str, torch.Tensor]) -> float:
        if (self.stage.name, number) == (stopped_in, 2):
            raise KeyboardInterrupt
        return real(self, number, batch)

    monkeypatch.setattr(recipe.Trainer, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        recipe.train(TINY, tmp_path / "stopped", every=0)
    monkeypatch.undo()
    again, _ = recipe.train(TINY, tmp_path / "stopped")
    assert same(whole, again)
    assert not same(whole, recipe.build_model(TINY, recipe.build_processor(TINY).tokenizer))


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    recipe.train(TINY, tmp_path)
    with pytest.raises(tk.ArgumentError, match=r"checkpoint of other settings: pass --fresh"):
        recipe.train(replace(TINY, seed=1), tmp_path)


def test_the_vision_tower_is_not_touched_by_the_second_stage(tmp_path: Path) -> None:
    first, _ = recipe.train(replace(TINY, steps=(3, 1)), tmp_path / "a")
    second, _ = recipe.train(replace(TINY, steps=(3, 4)), tmp_path / "b")
    assert same(first.model.vision_tower, second.model.vision_tower)
    assert not same(first.model.language_model, second.model.language_model)


def test_pixels_are_those_of_the_processor(parts: tuple[Any, Any]) -> None:
    image = render(sample_scene(random.Random(0), bias=0.9), TINY.side)
    expected = parts[1].image_processor(image, return_tensors="pt")["pixel_values"][0]
    assert torch.allclose(recipe.pixels(image), expected, atol=1e-6)


def moved(name: str, scene: Any, seed: int = 3) -> recipe.View:
    """The scene's view by one transform."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "TRANSFORMS", {name: TRANSFORMS[name]})
        return recipe.view(scene, random.Random(seed), replace(TINY, transformed=1.0))


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_objects_are_where_the_transformed_picture_shows_them(name: str) -> None:
    """Oracle: where the picture differs from that of the scene without the object, both transformed."""
    seen = 0
    for number in range(6):
        scene = sample_scene(random.Random(number), bias=0.0)
        for placed in scene.objects:
            view = moved(name, replace(scene, objects=(placed,)), seed=number)
            rng = random.Random(number)
            rng.random(), rng.choice([name])
            seed, empty = rng.getrandbits(32), render(replace(scene, objects=()), 64)
            without = TRANSFORMS[name](empty, random.Random(seed), size=(64, 64))
            change = np.abs(np.asarray(view.image, float) - np.asarray(without, float)).sum(axis=-1)
            rows, columns = np.nonzero(change > 30)
            if len(rows) < 12 or min(rows.min(), columns.min()) == 0 or max(rows.max(), columns.max()) == 63:
                continue  # at the edge, where not all of it shows, or out of view and the picture left as it was
            (found,) = view.scene.objects
            for centre, axis in ((found.x, columns), (found.y, rows)):
                assert axis.min() / 64 - 0.02 < centre < (axis.max() + 1) / 64 + 0.02
            seen += 1
    assert seen >= 3


def test_flips_and_colours_keep_every_object() -> None:
    scene = sample_scene(random.Random(1), bias=0.9)
    for name, (x, y) in {"horizontal_flip": (1, 0), "vertical_flip": (0, 1), "color_jitter": (0, 0)}.items():
        view = moved(name, scene)
        assert view.scene.names == scene.names
        for after, before in zip(view.scene.objects, scene.objects, strict=True):
            assert after.x == pytest.approx(1 - before.x if x else before.x, abs=1.5 / 64)
            assert after.y == pytest.approx(1 - before.y if y else before.y, abs=1.5 / 64)


def test_the_helpful_transform_is_the_flip_that_moves_farther() -> None:
    scene = sample_scene(random.Random(1), bias=0.9)
    first = scene.objects[0]
    beside = replace(scene, objects=(replace(first, x=0.1, y=0.5),))
    below = replace(scene, objects=(replace(first, x=0.5, y=0.9),))
    assert [recipe.helpful_transform(one) for one in (beside, below)] == ["horizontal_flip", "vertical_flip"]


def test_the_choice_is_asked_as_ritual_plus_asks_it(parts: tuple[Any, Any]) -> None:
    """Oracle: the tokens that `tk.RITUALPlus` makes of the prompt."""
    model, processor = parts
    scene = sample_scene(random.Random(0), bias=0.9)
    text, answer = recipe._turns(scene, random.Random(0), replace(TINY, choosing=1.0))[-1]
    question, _, _ = text.partition("\n\n")
    prompt, asked = (f"<s>USER: <image>\n{one} ASSISTANT:" for one in (question, text))
    decoder = tk.RITUALPlus(model, processor, images=render(scene, TINY.side))
    encode = processor.tokenizer
    assert decoder._with_question(encode(prompt).input_ids) == encode(asked).input_ids
    assert parse_choice(answer, list(TRANSFORMS)) == recipe.helpful_transform(scene)


@pytest.mark.parametrize("blind", [0.0, 1.0], ids=["with the picture", "without"])
def test_a_row_is_as_good_as_one_conversation_for_each_turn(blind: float, parts: tuple[Any, Any]) -> None:
    """Oracle: the logits and targets of each conversation alone, through chat template and processor."""
    model, processor = parts
    settings = replace(TINY, blind=blind, choosing=0.5, batch=(2, 3))
    batch = recipe.TalkingData(settings, processor)[5]
    packed = model.lm_head(
        model.model(
            input_ids=batch["ids"],
            pixel_values=batch["pixels"],
            attention_mask=batch["seen"],
            position_ids=batch["positions"],
        ).last_hidden_state
    )
    rng = random.Random(f"{settings.seed} talking 5")
    scenes = [recipe._talking_scene(rng, settings) for _ in range(3)]
    for row, view in enumerate([recipe.view(scene, rng, settings) for scene in scenes]):
        rng.random()  # whether the row is blind
        answered = batch["targets"][row] != -100
        found, targets = packed[row][answered], batch["targets"][row][answered]
        for text, answer in recipe._turns(view.scene, rng, settings):
            user = [{"type": "image"}] * (not blind) + [{"type": "text", "text": text}]
            asked = processor.apply_chat_template([{"role": "user", "content": user}], add_generation_prompt=True)
            images = None if blind else [view.image]
            inputs = processor(text=[f"{asked} {answer}</s>"], images=images, return_tensors="pt")
            start = processor(text=[asked], images=images, return_tensors="pt")["input_ids"].shape[1]
            said = inputs["input_ids"][0, start:]
            assert torch.equal(targets[: len(said)], said)
            alone = model(**inputs).logits[0, start - 1 : -1]
            assert torch.allclose(found[: len(said)], alone, atol=1e-5)
            found, targets = found[len(said) :], targets[len(said) :]
        assert len(targets) == 0


def test_tokenizer_takes_any_text_and_knows_the_objects(parts: tuple[Any, Any]) -> None:
    tokenizer = parts[1].tokenizer
    text = "Überraschung: 12 žluťoučký 猫 and a fork?\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.tokenize(" a fork, a traffic light") == ["Ġa", "Ġfork", ",", "Ġa", "Ġtraffic", "Ġlight"]
    assert len(tokenizer) <= TINY.vocabulary


def test_share_has_wilsons_interval() -> None:
    """Oracle: the value of the literature for 10 of 100, by hand from the formula: 0.0552 to 0.1744."""
    figure = recipe.share([True] * 10 + [False] * 90)
    assert figure == pytest.approx({"rate": 0.1, "low": 0.05523, "high": 0.17437, "count": 100}, abs=1e-4)


def test_what_is_saved_is_half_as_large_and_loads_in_full(tmp_path: Path, parts: tuple[Any, Any]) -> None:
    model, processor = parts
    recipe.save(model, processor, tmp_path)
    loaded, again = tk.load(tmp_path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float())
    assert (tmp_path / "model.safetensors").stat().st_size < 2.2 * model.num_parameters() + 20_000
    assert type(again.image_processor).__name__ == "CLIPImageProcessorPil"


@pytest.mark.slow
def test_killed_and_run_again_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, recipe.__file__, "--steps", "4", "6", "--scenes", "4", "--threads", "1", "--out"]
    environment = os.environ | {"PYTHONPATH": str(Path(recipe.__file__).parent.parent)}
    with subprocess.Popen(
        [*command, str(tmp_path / "m")], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        seen = ""
        while "talking" not in seen:
            seen += process.stderr.read(1)
        process.send_signal(signal.SIGKILL)
    result = subprocess.run(
        [*command, str(tmp_path / "m")], env=environment, capture_output=True, text=True, check=True
    )
    assert "yes to what is absent partner" in result.stdout
    assert "looking" not in result.stderr, "the first stage was done"
    record = json.loads((tmp_path / "m" / "training.json").read_text())
    assert record["figures"]["scenes"] == 4
    assert "test model" in (tmp_path / "m" / "README.md").read_text()
