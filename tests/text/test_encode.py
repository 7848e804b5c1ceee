"""Prompts behind a conversation, against the template's own words."""

from __future__ import annotations

from typing import Any

import pytest

import truthkit as tk
from truthkit.scenes.questions import held_out
from truthkit.scenes.render import render
from truthkit.text.encode import encode_prompt

EARLIER = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A model, <b>small</b>."}]


def test_a_conversation_is_written_by_the_template(smollm2: Any) -> None:
    tokenizer = smollm2[1]
    got = encode_prompt(tokenizer, "And how old?", system="Be brief.", earlier=EARLIER)["input_ids"]
    whole = [{"role": "system", "content": "Be brief."}, *EARLIER, {"role": "user", "content": "And how old?"}]
    expected = tokenizer.apply_chat_template(whole, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    assert got.tolist() == expected.tolist()
    alone = encode_prompt(tokenizer, "And how old?", earlier=[])["input_ids"]
    assert alone.tolist() == encode_prompt(tokenizer, "And how old?")["input_ids"].tolist()


def test_images_stand_in_the_first_message() -> None:
    processor = tk.load("scene-vlm")[1]
    image = render(held_out(1)[0])
    got = encode_prompt(processor, "And how old?", images=[image], earlier=EARLIER)
    text = "USER: <image>\nWho are you? ASSISTANT: A model, <b>small</b>.</s>USER: And how old? ASSISTANT:"
    expected = processor(images=[[image]], text=[f"{processor.tokenizer.bos_token}{text}"], add_special_tokens=False)
    assert got["input_ids"].tolist() == [list(row) for row in expected["input_ids"]]
    assert len(got["pixel_values"]) == 1


def test_a_conversation_needs_a_template(smollm2: Any) -> None:
    with pytest.raises(tk.ArgumentError, match="a conversation needs a chat template, and raw is set"):
        encode_prompt(smollm2[1], "And?", raw=True, earlier=EARLIER)
    with pytest.raises(tk.ArgumentError, match="prompt is empty"):
        encode_prompt(smollm2[1], " ", earlier=EARLIER)
