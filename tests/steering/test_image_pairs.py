"""Pairs whose messages hold images. Oracle: the family's own processor, one text at a time, and a plain hook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.activations.oracle import block_list
from tests.decoding.cases import ToyTokenizer
from tests.steering.test_extract import distance
from tests.tiny import tiny
from tests.tiny_vlm import TinyVLM, picture, tiny_vlm
from truthkit.steering import Pair, read_pairs
from truthkit.steering.extraction.encoding import encode_pairs
from truthkit.steering.extraction.select import preference

# PaliGemma's processor, of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}:{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}IMAGE{% else %}{{ p['text'] }}{% endif %}{% endfor %}|{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
MARKS = {"qwen2_vl": "<|vision_start|><image><|vision_end|>", "instructblip": "", "gemma3": "<boi>"}


@pytest.fixture(scope="module", params=["llava", "qwen2_vl", "instructblip", "paligemma", "gemma3"])
def vlm(request: pytest.FixtureRequest) -> TinyVLM:
    made = tiny_vlm(request.param)
    made.processor.chat_template = TEMPLATE.replace("IMAGE", MARKS.get(request.param, "<image>"))
    return made


def asked(image: Any, text: str = "what is it?") -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}]


IMAGES = [picture(40, 30, 1), picture(64, 48, 2)]
PAIRS = [
    Pair("a cat", "two dogs", prompt=asked(IMAGES[0])),
    Pair(asked(IMAGES[0], "so"), asked(IMAGES[1], "so")),
    Pair("without", "an image"),
]


def state(vlm: TinyVLM, text: str, images: list[Any]) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = block_list(vlm.model)[2].register_forward_hook(
        lambda _m, _a, output: seen.append(output[0] if isinstance(output, tuple) else output)
    )
    with torch.no_grad():
        if images:
            vlm.model(**vlm.inputs([text if vlm.several else text.replace("{}", "")], [images]), use_cache=False)
        else:
            decoder = vlm.model.get_decoder() if vlm.family == "instructblip" else vlm.model
            decoder(input_ids=torch.tensor([vlm.processor.tokenizer(text).input_ids]), use_cache=False)
    handle.remove()
    return seen[0][0, -1].double()


def test_the_vector_is_that_of_texts_and_images(vlm: TinyVLM) -> None:
    one, two = IMAGES
    total = state(vlm, "user:{}what is it?|assistant:a cat", [one])
    total -= state(vlm, "user:{}what is it?|assistant:two dogs", [one])
    total += state(vlm, "user:{}so|assistant:", [one]) - state(vlm, "user:{}so|assistant:", [two])
    total += state(vlm, "without", []) - state(vlm, "an image", [])
    for method in ("mean", "pca"):  # the second reads both sides of a pair in one batch
        vector = tk.extract(vlm.model, vlm.processor, PAIRS, layers=[2], method=method, held_out=0)
        if method == "mean":
            assert distance(vector[2], total / 3) < 1e-4
        else:
            assert float(vector[2].double() @ total) > 0
    image = tk.extract(vlm.model, vlm.processor, PAIRS[:2], layers=[2], positions="image", held_out=0)
    assert image[2].norm() > 0
    other = tk.extract(vlm.model, vlm.processor, [PAIRS[0], Pair(PAIRS[1].negative, PAIRS[1].positive)], held_out=0)
    assert image.provenance["hashes"]["pairs"] != other.provenance["hashes"]["pairs"]


def test_preference_sees_the_image(vlm: TinyVLM) -> None:
    encoded = [encode_pairs([Pair("a cat", "two dogs", prompt=asked(image))], vlm.processor) for image in IMAGES]
    assert preference(vlm.model, encoded[0], [0]) != preference(vlm.model, encoded[1], [0])


def test_paths_in_a_file_are_relative_to_it(vlm: TinyVLM, tmp_path: Path) -> None:
    (folder := tmp_path / "some where").mkdir()
    for number, image in enumerate(IMAGES):
        image.save(folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"no image")

    def message(path: str) -> list[dict[str, Any]]:
        return [{"role": "user", "content": [{"type": "image", "path": path}, {"type": "text", "text": "what is it?"}]}]

    lines = [
        {"prompt": message("0.png"), "positive": "a cat", "negative": "two dogs"},
        {"prompt": message("none.png"), "positive": "a", "negative": "b"},
        {"prompt": message("bad.png"), "positive": "a", "negative": "b"},
        {"prompt": message("https://example.org/1.png"), "positive": "a", "negative": "b"},
        {"prompt": [{"role": "user", "content": [{"type": "video"}]}], "positive": "a", "negative": "b"},
        {"positive": message("0.png"), "negative": message(str(folder / "1.png"))},
    ]
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    found = read_pairs(path)
    reasons = ["there is no image file", "is no image that Pillow", "addresses are not fetched", "with the part"]
    assert [bad.number for bad in found.bad] == [2, 3, 4, 5]
    assert all(reason in bad.reason for bad, reason in zip(found.bad, reasons, strict=True))
    with pytest.warns(UserWarning, match="4 bad lines"):
        vector = tk.extract(vlm.model, vlm.processor, path, layers=[2], held_out=0)
    pairs = [PAIRS[0], Pair(asked(IMAGES[0]), asked(IMAGES[1]))]
    expected = tk.extract(vlm.model, vlm.processor, pairs, layers=[2], held_out=0)
    assert torch.equal(vector[2], expected[2])


def test_images_for_a_text_model() -> None:
    with pytest.raises(tk.ArgumentError, match=r"pairs\[0\], positive: .* no image-text processor"):
        tk.extract(tiny("llama"), ToyTokenizer(), PAIRS[:1])
