"""Several questions about one image, read once, against each question by itself; and what cannot be shared."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from tests.tiny_vlm import FAMILIES, picture, tiny_vlm
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.records import Records
from truthkit.likelihood.shared_images import can_share, generate_behind_images
from truthkit.scenes.questions import held_out, questions
from truthkit.scenes.render import render

WHOLE = {"instructblip", "paligemma", "gemma3", "llava_next"}
"""Their prompts cannot be cut: a Q-Former that reads the question, a prompt that sees itself, sliding windows (of the
tiny LLaVA-NeXT, which speaks Mistral's way)."""

TEXTS = [
    ["{}Is there a dog?", "{}Is there a red square in it?", "{}What?"],
    ["{}Is it?", "{}Is there a cat on the roof of that house?"],
]


DECODERS = (
    "apc:beta=0",
    "vcd",
    "dola:layers=0+1",
    "vcd+apc",
    "m3id:decay=0.5",
    "icd",
    "activation_decoding:layer=0,alpha=3",
)
CUT = [family for family in FAMILIES if family not in WHOLE]


def quick(family: str, decoder: str) -> bool:
    """Two families meet every decoder, the others two of them in turn; the rest is slow."""
    return family in ("llava", "qwen2_vl") or (CUT.index(family) - DECODERS.index(decoder)) % 3 == 0


@pytest.mark.parametrize(
    ("family", "decoder"),
    [
        pytest.param(family, decoder, marks=() if quick(family, decoder) else pytest.mark.slow)
        for family in CUT
        for decoder in DECODERS
    ],
)
def test_equals_each_question_alone(family: str, decoder: str) -> None:
    tiny = tiny_vlm(family)
    images = [picture(40, 30, seed=1), picture(30, 44, seed=2)]
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 4, "pad_token_id": 0}
    built: Any = parse_spec(decoder).build(tiny.model, tiny.processor)
    rows, places, expected = [], [], []
    for place, texts in enumerate(TEXTS):
        for text in texts:
            inputs = tiny.inputs([text], [[images[place]]])
            rows.append(inputs["input_ids"][0].tolist())
            places.append(place)
            with built:
                expected.append(tiny.model.generate(**inputs, **options)[0, len(rows[-1]) :].tolist())
    assert can_share(built, rows, places)
    trunk = tiny.inputs([texts[0] for texts in TEXTS], [[image] for image in images])
    with built as session:
        found = generate_behind_images(session, rows, places, trunk, **options)
        again = generate_behind_images(
            session, rows[:3], places[:3], tiny.inputs(TEXTS[0][:1], [images[:1]]), **options
        )
    assert found.tolist() == expected
    assert again.tolist() == expected[:3]
    assert len({tuple(tokens) for tokens in expected}) > 2


@pytest.mark.parametrize("family", sorted(WHOLE))
def test_prompts_that_cannot_be_cut(family: str) -> None:
    assert not can_share(tk.APC(tiny_vlm(family).model), [[5, 6, 7], [5, 6, 8]], [0, 0])


def test_views_whose_prompts_cannot_be_cut() -> None:
    """The passage that CAD leaves out ends in what the questions do not share; M3ID leaves nothing of an image."""
    tiny = tiny_vlm("llava")
    rows = [[*map(ord, f"It is a dog. {question}")] for question in ("A?", "B?")]
    decoder = tk.CAD(tiny.model, ToyTokenizer(), context="dog. ")
    assert can_share(decoder, rows, [0, 0])
    assert not can_share(tk.CAD(tiny.model, ToyTokenizer(), context="dog. A"), rows, [0, 0])
    image = tiny.model.config.image_token_id
    assert not can_share(tk.M3ID(tiny.model), [[image, 5], [image, 6]], [0, 0])
    assert can_share(tk.M3ID(tiny.model), [[7, image, 5], [7, image, 6]], [0, 0])


@pytest.mark.parametrize("decoder", ["greedy", "vcd", "ritual", "m3id"])
def test_scenes(tmp_path: Path, decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped model, sampling, in batches that would cut an image's questions: the same answers either way."""
    model, processor = tk.load("scene-vlm")
    items = []
    for number, scene in enumerate(held_out(3, seed=3)):
        path = tmp_path / f"{number}.png"
        render(scene).save(path)
        asked = questions(scene, random.Random(number), kind="random")[:5]
        items += [Item(f"{number} {i}", question.text, (str(path),)) for i, question in enumerate(asked)]
    outputs = {}
    for share in (True, False):
        records = Records(tmp_path / f"{share}", {})
        asking = Asking(
            model, processor, parse_spec(decoder), {}, max_new_tokens=4, sample=True, share_prefix=share, batch_size=8
        )
        asking.run(items, records)
        outputs[share] = {key: record["output"] for key, record in records.done.items()}
    assert outputs[True] == outputs[False]
    assert len(outputs[True]) == len(items)
    assert len(set(outputs[True].values())) > 1
