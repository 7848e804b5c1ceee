"""Image decoders on `scene-vlm`, a trained model, over 24 tokens, against the oracle of test_image_decoders.py."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
from PIL import Image

import truthkit as tk
from tests.decoding.image_cases import CASES, MODES, Bench, Row
from tests.decoding.test_image_decoders import CACHES, decode, want
from tests.tiny_vlm import TinyVLM
from truthkit.scenes.questions import held_out
from truthkit.scenes.render import render

_METHODS = ("vcd", "ritual", "pai", "sid", "sid-early", "avisc", "avisc-all", "pai+vcd")
"""Not M3ID: with the decay of its case the weight is 4,000 after 21 tokens, and so large is rounding then."""
_ASKED = ("what do you see?", "Is there a cat in the image?", "Describe the image in one sentence.", "a dog?")


class SceneVLM(TinyVLM):
    """`scene-vlm`, as the oracle takes a model."""

    @property
    def several(self) -> bool:
        return False

    def inputs(self, texts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> dict[str, torch.Tensor]:
        filled = [text.format(*["<image>"] * len(row)) for text, row in zip(texts, images, strict=True)]
        given: Any = [image for row in images for image in row] or None
        return dict(self.processor(images=given, text=filled, padding=True, return_tensors="pt"))


@pytest.fixture(scope="module")
def bench() -> Bench:
    model, processor = tk.load("scene-vlm")
    processor.tokenizer.padding_side = "left"
    model.generation_config.eos_token_id = None  # and so all rows are 24 tokens long
    scenes = zip(held_out(len(_ASKED)), _ASKED, strict=True)
    rows = tuple(Row(f"USER: {{}}\n{text} ASSISTANT:", (render(scene),), "") for scene, text in scenes)
    return Bench(SceneVLM("llava", model, processor), tk.load("scene-vlm")[0], "", None, rows)


def check(bench: Bench, name: str, mode: str, batch: int, cache: str) -> None:
    options = MODES[mode] | CACHES[cache] | {"max_new_tokens": 24}
    with CASES[name].attached(bench, batch):
        got = decode(bench.model, bench.inputs(batch), **options)
    expected = want(bench, name, batch, got.sequences, **MODES[mode], max_new_tokens=24)
    assert got.sequences.tolist() == expected.sequences.tolist()
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(expected.logits), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", _METHODS)
def test_padded_batch(bench: Bench, name: str) -> None:
    check(bench, name, "greedy", 4, "dynamic")


@pytest.mark.slow
@pytest.mark.parametrize("name", _METHODS)
def test_all_modes(bench: Bench, name: str) -> None:
    for mode, batch, cache in product(MODES, (1, 4), ("dynamic", "static")):
        check(bench, name, mode, batch, cache)
