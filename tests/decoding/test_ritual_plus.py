"""RITUAL+ reads nothing twice: what it read for the choice stays in the cache for the answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import truthkit as tk
from tests.tiny_vlm import TinyVLM, picture, tiny_vlm

TEMPLATE = (
    "{% for m in messages %}USER: {% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}"
    "{% endfor %} END{% endfor %}{% if add_generation_prompt %} BOT:{% endif %}"
)
IMAGES = [[picture(50, 40, 1)], [picture(30, 44, 2)]]


def bench(family: str) -> tuple[TinyVLM, dict[str, torch.Tensor]]:
    tiny = tiny_vlm(family)
    tiny.processor.chat_template = TEMPLATE
    return tiny, tiny.inputs(["{}what is it? END BOT:", "{}who? END BOT:"], IMAGES)


def widths(model: Any, decoder: Any, inputs: dict[str, torch.Tensor], **options: Any) -> tuple[Any, list[int]]:
    """The output, and how many positions each forward of the language model read."""
    seen: list[int] = []
    handle = model.get_decoder().register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    with handle, decoder:
        return model.generate(**inputs, max_new_tokens=5, do_sample=False, **options), seen


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "idefics3", "internvl"])
def test_prompt_is_read_once(family: str) -> None:
    """Oracle: the same decoder without what was read before."""
    tiny, inputs = bench(family)
    decoder = tk.RITUALPlus(tiny.model, tiny.processor, images=IMAGES)
    output, seen = widths(tiny.model, decoder, inputs)
    anew = tk.RITUALPlus(tiny.model, tiny.processor, images=IMAGES)
    anew.prefix = lambda *_args: None  # type: ignore[method-assign]
    expected, seen_anew = widths(tiny.model, anew, inputs)
    assert output.tolist() == expected.tolist()
    assert decoder.replies == anew.replies
    length = inputs["input_ids"].shape[1]
    ending = len(decoder._ending)
    assert length in seen_anew
    assert length not in seen
    assert {length - ending, ending} <= set(seen)


@pytest.mark.parametrize("options", [{"num_beams": 2}, {"use_cache": False}, {"cache_implementation": "static"}])
def test_modes_that_read_anew(options: dict[str, Any]) -> None:
    tiny, inputs = bench("llava")
    decoder = tk.RITUALPlus(tiny.model, tiny.processor, images=IMAGES)
    output, seen = widths(tiny.model, decoder, inputs, **options)
    assert inputs["input_ids"].shape[1] in seen
    anew = tk.RITUALPlus(tiny.model, tiny.processor, images=IMAGES)
    anew.prefix = lambda *_args: None  # type: ignore[method-assign]
    assert output.tolist() == widths(tiny.model, anew, inputs, **options)[0].tolist()


def test_in_company() -> None:
    """As a part of a sum it asks the model itself, without the views of the sum."""
    tiny, inputs = bench("llava")
    alone = tk.RITUALPlus(tiny.model, tiny.processor, images=IMAGES)
    widths(tiny.model, alone, inputs)
    part = tk.RITUALPlus(tiny.model, tiny.processor, images=IMAGES)
    widths(tiny.model, part + tk.VCD(tiny.model), inputs)
    assert part.replies == alone.replies
    assert part.chosen == alone.chosen


def test_logits_processor() -> None:
    tiny, inputs = bench("llava")
    with tk.RITUALPlus(tiny.model, tiny.processor, images=IMAGES):
        expected = tiny.model.generate(**inputs, max_new_tokens=5, do_sample=False)
    processor = tk.RITUALPlusLogitsProcessor(tiny.model, tiny.processor, images=IMAGES)
    output = tiny.model.generate(**inputs, max_new_tokens=5, do_sample=False, logits_processor=[processor])
    assert output.tolist() == expected.tolist()
