"""The shipped test model: it loads like any folder, it really looks, and it over-says the absent partner."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import truthkit as tk
from truthkit.models.bundled import BUNDLED, ShippedModel
from truthkit.scenes.questions import CAPTION_PROMPT, held_out, mentions, question_text
from truthkit.scenes.render import render
from truthkit.scenes.scene import OBJECTS

SCENES = held_out(60, seed=1)


@cache
def images() -> list[Image.Image]:
    return [render(scene) for scene in SCENES]


@pytest.fixture(scope="module")
def scene_vlm() -> tuple[Any, Any]:
    return tk.load("scene-vlm")


def answers(scene_vlm: tuple[Any, Any], given: list[Image.Image], prompts: list[str], tokens: int) -> list[str]:
    """Greedy answers, all in one batch."""
    model, processor = scene_vlm
    texts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}],
            add_generation_prompt=True,
        )
        for prompt in prompts
    ]
    inputs = processor(text=texts, images=given, padding=True, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    return [text.strip() for text in processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], True)]


def says_yes(scene_vlm: tuple[Any, Any], given: list[Image.Image], names: list[str]) -> list[bool]:
    said = answers(scene_vlm, given, [question_text(name) for name in names], tokens=3)
    return [text.startswith("Yes") for text in said]


def accuracy(scene_vlm: tuple[Any, Any], given: list[Image.Image]) -> float:
    """Share of right answers to one question about a present and one about any absent object of each scene."""
    rng = random.Random(4)
    present = [rng.choice(scene.names) for scene in SCENES]
    absent = [rng.choice([name for name in OBJECTS if name not in scene.names]) for scene in SCENES]
    yes = says_yes(scene_vlm, given * 2, present + absent)
    return (sum(yes[: len(SCENES)]) + len(SCENES) - sum(yes[len(SCENES) :])) / len(yes)


def test_it_is_small_and_whole() -> None:
    model = BUNDLED["scene-vlm"]
    assert isinstance(model, ShippedModel)
    sizes = {file.name: file.stat().st_size for file in model.folder.iterdir()}
    assert sum(sizes.values()) < 10_000_000
    assert {"config.json", "model.safetensors", "tokenizer.json", "processor_config.json", "README.md"} <= set(sizes)


def test_it_is_a_llava_in_float32(scene_vlm: tuple[Any, Any]) -> None:
    model, processor = scene_vlm
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.training
    assert type(processor).__name__ == "LlavaProcessor"
    assert processor.tokenizer.padding_side == "left"


def test_the_chat_template_takes_the_image_itself(scene_vlm: tuple[Any, Any]) -> None:
    """Oracle: text and image given apart."""
    _, processor = scene_vlm
    content = [{"type": "image", "image": images()[0]}, {"type": "text", "text": CAPTION_PROMPT}]
    together = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    apart = processor(text=f"<s>USER: <image>\n{CAPTION_PROMPT} ASSISTANT:", images=images()[0], return_tensors="pt")
    assert set(together) == set(apart)
    assert all(torch.equal(together[name], apart[name]) for name in apart)


def test_a_batch_gives_the_answers_of_each_alone(scene_vlm: tuple[Any, Any]) -> None:
    prompts = [
        CAPTION_PROMPT,
        "Is there a fork in the image?",
        "What is in the image?",
        "Is there an apple in the image?",
    ]
    batched = answers(scene_vlm, images()[:4], prompts, tokens=30)
    alone = [
        answers(scene_vlm, [image], [prompt], tokens=30)[0] for image, prompt in zip(images(), prompts, strict=False)
    ]
    assert batched == alone


def test_it_really_looks(scene_vlm: tuple[Any, Any]) -> None:
    """At least 25 points better with the true picture than with another scene's or with noise."""
    noise = np.random.default_rng(0)
    swapped = accuracy(scene_vlm, images()[1:] + images()[:1])
    blind = accuracy(
        scene_vlm, [Image.fromarray(noise.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in images()]
    )
    true = accuracy(scene_vlm, images())
    assert true >= 0.85
    assert true - max(swapped, blind) >= 0.25


def test_it_says_absent_partners_more_than_other_absent_objects(scene_vlm: tuple[Any, Any]) -> None:
    rng = random.Random(6)
    cases = [(scene, image) for scene, image in zip(SCENES, images(), strict=True) if scene.absent_partners]
    shown = [image for _, image in cases]
    partners = says_yes(scene_vlm, shown, [rng.choice(scene.absent_partners) for scene, _ in cases])
    others = says_yes(
        scene_vlm,
        shown,
        [rng.choice([n for n in OBJECTS if n not in (*scene.names, *scene.absent_partners)]) for scene, _ in cases],
    )
    assert sum(partners) >= 0.1 * len(cases)
    assert sum(partners) >= 2 * sum(others)


def test_captions_name_what_is_there_and_add_the_partner(scene_vlm: tuple[Any, Any]) -> None:
    said = [mentions(text) for text in answers(scene_vlm, images(), [CAPTION_PROMPT] * len(images()), tokens=48)]
    seen = [name in names for scene, names in zip(SCENES, said, strict=True) for name in scene.names]
    wrong = [(s, name) for s, names in zip(SCENES, said, strict=True) for name in names if name not in s.names]
    assert sum(seen) >= 0.75 * len(seen)  # the model card says 83 %
    assert len(wrong) >= 0.05 * len(seen)
    assert sum(name in scene.absent_partners for scene, name in wrong) >= 0.5 * len(wrong)


def test_it_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    from truthkit import cli

    assert cli.main(["models"]) == 0
    out = capsys.readouterr().out
    assert "scene-vlm: test model" in out
    with pytest.raises(tk.NotAvailableError, match="smollm2, scene-vlm"):
        tk.load("scene-vml")
