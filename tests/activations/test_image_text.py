"""Image-text models under `generate`, with real pixels and left padding. Oracle: each prompt alone, unpadded, without
cache, its states changed and read by a plain hook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.activations.oracle import block_list
from tests.tiny_vlm import SPECIAL, TinyVLM, picture, tiny_vlm
from truthkit.activations.capture import Capture

FAMILIES = ("llava", "llava_next", "qwen2_vl", "qwen2_5_vl", "instructblip", "paligemma", "gemma3", "smolvlm")
COUNT, LAYER = 6, 1
TEXTS = ("what is {}this, then", "a {}cat")
IMAGES = ([picture(40, 30, 1)], [picture(64, 48, 2)])

Inputs = dict[str, torch.Tensor]
Chosen = Callable[[torch.Tensor, int], torch.Tensor]
CHOSEN: dict[str, Chosen] = {
    "all": lambda ids, _prompt: torch.ones_like(ids, dtype=torch.bool),
    "prompt": lambda ids, prompt: torch.arange(len(ids)) < prompt,
    "generated": lambda ids, prompt: torch.arange(len(ids)) >= prompt,
    "last": lambda ids, prompt: torch.arange(len(ids)) == prompt - 1,
    "image": lambda ids, _prompt: ids == SPECIAL["<image>"],
}


def made(tiny: TinyVLM, rows: tuple[int, ...]) -> Inputs:
    texts = [TEXTS[row] if tiny.several else TEXTS[row].format("") for row in rows]
    return tiny.inputs(texts, [IMAGES[row] for row in rows])


@torch.no_grad()
def whole(model: Any, inputs: Inputs, more: list[int], hook: Any) -> torch.Tensor:
    """One forward over a prompt with its images and what came after it; the logits of its last token."""
    after = torch.tensor([more], dtype=torch.long)
    call = {**inputs, "input_ids": torch.cat([inputs["input_ids"], after], dim=1)}
    call["attention_mask"] = torch.ones_like(call["input_ids"])
    for name in ("mm_token_type_ids", "token_type_ids"):
        if name in inputs:  # of PaliGemma, 1 is what comes after the prompt; elsewhere 0 is text
            kind = torch.full_like(after, int(model.config.model_type == "paligemma"))
            call[name] = torch.cat([inputs[name], kind], dim=1)
    handle = block_list(model)[LAYER].register_forward_hook(hook)
    try:
        return model(**call, use_cache=False).logits[0, -1]
    finally:
        handle.remove()


def by_hand(model: Any, inputs: Inputs, chosen: Chosen, vector: torch.Tensor) -> list[int]:
    text, prompt = inputs["input_ids"][0].tolist(), inputs["input_ids"].shape[1]

    def edit(_module: Any, _args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        changed = hidden + vector * chosen(torch.tensor(text), prompt)[None, :, None]
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    for _ in range(COUNT):
        text.append(int(whole(model, inputs, text[prompt:], edit).argmax()))
    return text[prompt:]


def generated(tiny: TinyVLM, inputs: Inputs, **options: Any) -> list[list[int]]:
    return tiny.model.generate(**inputs, max_new_tokens=COUNT, do_sample=False, **options)[:, -COUNT:].tolist()


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request: pytest.FixtureRequest) -> TinyVLM:
    return tiny_vlm(request.param)


def test_steered_tokens(tiny: TinyVLM) -> None:
    vector = 8 * torch.randn(48)
    plain = generated(tiny, made(tiny, (0, 1)))
    for positions, where in CHOSEN.items():
        with tk.Steering(tiny.model, {LAYER: vector}, positions=positions):
            together = generated(tiny, made(tiny, (0, 1)))
        assert together == [by_hand(tiny.model, made(tiny, (row,)), where, vector) for row in (0, 1)], positions
        assert together != plain, positions


def test_beams_are_those_of_each_row_alone(tiny: TinyVLM) -> None:
    vector, positions = 8 * torch.randn(48), ("image", "generated")
    options = {"max_new_tokens": COUNT, "num_beams": 2, "do_sample": False}
    with tk.Steering(tiny.model, {LAYER: vector}, positions=positions):
        beams = tiny.model.generate(**made(tiny, (0, 1)), **options)
    for row in (0, 1):
        with tk.Steering(tiny.model, {LAYER: vector}, positions=positions):
            alone = tiny.model.generate(**made(tiny, (row,)), **options)
        assert alone[0, -COUNT:].tolist() == beams[row, -COUNT:].tolist()


def test_captured_states(tiny: TinyVLM) -> None:
    for positions in CHOSEN:
        check_captured(tiny, positions)


def check_captured(tiny: TinyVLM, positions: str) -> None:
    with Capture(tiny.model, [LAYER], positions=positions) as capture:
        tokens = generated(tiny, made(tiny, (0, 1)))
    for row in (0, 1):
        inputs = made(tiny, (row,))
        seen: list[torch.Tensor] = []

        def look(_module: Any, _args: Any, output: Any, seen: list[torch.Tensor] = seen) -> None:
            seen.append((output[0] if isinstance(output, tuple) else output)[0])

        whole(tiny.model, inputs, tokens[row][:-1], look)
        text = torch.tensor(inputs["input_ids"][0].tolist() + tokens[row][:-1])
        expected = seen[0][CHOSEN[positions](text, inputs["input_ids"].shape[1])]
        torch.testing.assert_close(capture[LAYER][capture.rows == row], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("order", ["decoder first", "steering first"])
def test_views_with_other_images_are_steered(tiny: TinyVLM, order: str) -> None:
    """Adding a constant everywhere is what a bias does."""
    vector, inputs = 8 * torch.randn(48), made(tiny, (0, 1))
    decoder, steering = tk.VCD(tiny.model), tk.Steering(tiny.model, {LAYER: vector}, positions=("prompt", "generated"))
    first, second = (decoder, steering) if order == "decoder first" else (steering, decoder)
    with first, second:
        together = generated(tiny, inputs)

    def add(_module: Any, _args: Any, output: Any) -> Any:
        return (output[0] + vector, *output[1:]) if isinstance(output, tuple) else output + vector

    handle = block_list(tiny.model)[LAYER].register_forward_hook(add)
    with tk.VCD(tiny.model):
        expected = generated(tiny, inputs)
    handle.remove()
    assert together == expected
