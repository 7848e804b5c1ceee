"""RITUAL+ reads nothing twice: what it read for the choice stays in the cache for the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.tiny_vlm import TinyVLM, picture, tiny_vlm
from truthkit.text.template import after_content

TEMPLATE = (
    "{% for m in messages %}USER: {% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}"
    "{% endfor %} END{% endfor %}{% if add_generation_prompt %} BOT:{% endif %}"
)
IMAGES = [[picture(50, 40, 1)], [picture(30, 44, 2)]]


def bench(family: str) -> tuple[TinyVLM, dict[str, torch.Tensor]]:
    tiny = tiny_vlm(family)
    tiny.processor.chat_template = TEMPLATE
    return tiny, tiny.inputs(["{}what is it? END BOT:", "{}who? END BOT:"], IMAGES)


def widths(
    model: Any, decoder: Any, inputs: dict[str, torch.Tensor], **options: Any
) -> tuple[Any, list[int], dict[str, Any]]:
    """The output, how many positions each forward of the language model read, and what was noted."""
    seen: list[int] = []
    handle = model.get_decoder().register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    with handle, decoder as session:
        return model.generate(**inputs, max_new_tokens=5, do_sample=False, **options), seen, session.notes


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """When called, nothing that was read for a question serves for the answer."""
    return lambda: monkeypatch.setattr("truthkit.decoding.engine.source._asked", lambda *_args: None)


@pytest.mark.parametrize("more", ["", "vcd"])
@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "idefics3", "internvl"])
def test_prompt_is_read_once(family: str, more: str, forgetful: Callable[[], None]) -> None:
    """Alone and beside another view. Oracle: the same decoder without what was read before."""
    tiny, inputs = bench(family)
    decoder: Any = tk.RITUALPlus(tiny.model, tiny.processor, images=IMAGES)
    if more:
        decoder = decoder + tk.VCD(tiny.model)
    output, seen, noted = widths(tiny.model, decoder, inputs)
    forgetful()
    expected, seen_anew, noted_anew = widths(tiny.model, decoder, inputs)
    assert output.tolist() == expected.tolist()
    assert noted["replies"] == noted_anew["replies"]
    length = inputs["input_ids"].shape[1]
    ending = len(after_content(tiny.processor))
    assert length in seen_anew
    assert length not in seen
    assert {length - ending, ending} <= set(seen)


@pytest.mark.parametrize("options", [{"num_beams": 2}, {"use_cache": False}, {"cache_implementation": "static"}])
def test_modes_that_read_anew(options: dict[str, Any], forgetful: Callable[[], None]) -> None:
    tiny, inputs = bench("llava")
    decoder = tk.RITUALPlus(tiny.model, tiny.processor, images=IMAGES)
    output, seen, _ = widths(tiny.model, decoder, inputs, **options)
    assert inputs["input_ids"].shape[1] in seen
    forgetful()
    assert output.tolist() == widths(tiny.model, decoder, inputs, **options)[0].tolist()


def test_in_company() -> None:
    """As a part of a sum it asks the model itself, without the views of the sum."""
    tiny, inputs = bench("llava")
    alone = tk.RITUALPlus(tiny.model, tiny.processor, images=IMAGES)
    noted = widths(tiny.model, alone, inputs)[2]
    assert widths(tiny.model, alone + tk.VCD(tiny.model), inputs)[2] == noted
    assert widths(tiny.model, tk.VCD(tiny.model) + alone, inputs)[2] == noted
    assert set(noted) == {"chosen", "seeds", "crop_size", "replies", "fell_back"}


def test_logits_processor() -> None:
    tiny, inputs = bench("llava")
    with tk.RITUALPlus(tiny.model, tiny.processor, images=IMAGES) as session:
        expected = tiny.model.generate(**inputs, max_new_tokens=5, do_sample=False)
    processor = tk.RITUALPlusLogitsProcessor(tiny.model, tiny.processor, images=IMAGES)
    output = tiny.model.generate(**inputs, max_new_tokens=5, do_sample=False, logits_processor=[processor])
    assert output.tolist() == expected.tolist()
    assert processor.notes == session.notes


def test_logits_processor_of_a_sum() -> None:
    """Its notes are those of the part that notes something."""
    tiny, inputs = bench("llava")
    ritual, vcd = tk.RITUAL(tiny.model, tiny.processor, images=IMAGES), tk.VCD(tiny.model)
    with vcd + ritual as session:
        expected = tiny.model.generate(**inputs, max_new_tokens=5, do_sample=False)
    processor = tk.TogetherLogitsProcessor(vcd, ritual)
    output = tiny.model.generate(**inputs, max_new_tokens=5, do_sample=False, logits_processor=[processor])
    assert output.tolist() == expected.tolist()
    assert processor.notes == session.notes
    assert len(processor.notes["chosen"]) == 2
