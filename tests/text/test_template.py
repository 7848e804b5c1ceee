"""Chats as text and as tokens. Oracle: the tokenizer's own `apply_chat_template`, called as each caller once did."""

from __future__ import annotations

from typing import Any

import pytest

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from tests.training.toys import chat_tokenizer
from truthkit.steering.extraction.encoding import encode_pairs
from truthkit.steering.extraction.pairs import Pair
from truthkit.text.encode import encode_dialogue, encode_prompt
from truthkit.text.template import after_content, chat_tokens, rendered, template_of
from truthkit.training.chat import Example, encode

CHAT = [{"role": "system", "content": "Be exact."}, {"role": "user", "content": "Why?"}]
ANSWERED = [*CHAT, {"role": "assistant", "content": "Because"}]
ENDINGS: dict[Any, dict[str, bool]] = {
    "cue": {"add_generation_prompt": True},
    "open": {"continue_final_message": True},
    "closed": {},
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending(ending: Any, smollm2: tuple[Any, Any]) -> None:
    _, tokenizer = smollm2
    options = ENDINGS[ending]
    text = tokenizer.apply_chat_template(ANSWERED, tokenize=False, **options)
    assert rendered(tokenizer, ANSWERED, ending) == text
    ids = tokenizer.apply_chat_template(ANSWERED, tokenize=True, return_dict=False, **options)
    assert chat_tokens(tokenizer, ANSWERED, ending) == ids == tokenizer(text, add_special_tokens=False).input_ids


def test_all_readers_of_a_chat_give_the_model_the_same_tokens(smollm2: tuple[Any, Any]) -> None:
    """Generation, verdicts, extraction and training, up to the answer and behind it."""
    _, tokenizer = smollm2
    asked = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    begun = tokenizer.apply_chat_template(ANSWERED, continue_final_message=True, return_dict=False)
    assert encode_prompt(tokenizer, "Why?", system="Be exact.")["input_ids"][0].tolist() == asked
    assert (encode_dialogue(tokenizer, CHAT), encode_dialogue(tokenizer, CHAT, "Because")) == (asked, begun)
    pairs = encode_pairs([Pair("Because", "Never", prompt=CHAT)], tokenizer)
    assert (pairs.ids[0], pairs.prompts[0]) == (begun, len(asked))
    ids, start, _ = encode(tokenizer, Example(CHAT, "Because"), 1000)
    assert (ids[:start], ids[: len(begun)]) == (asked, begun)
    assert tokenizer.decode(ids[start:]) == "Because<|im_end|>"
    assert tokenizer.decode(after_content(tokenizer)) == "<|im_end|>\n<|im_start|>assistant\n"


def test_a_processor_lends_its_template_to_the_tokenizer_inside() -> None:
    class Processor:
        tokenizer = chat_tokenizer()
        chat_template = tokenizer.chat_template

    expected = chat_tokenizer().apply_chat_template(CHAT[1:], add_generation_prompt=True, return_dict=False)
    Processor.tokenizer.chat_template = None
    assert template_of(Processor()) == Processor.chat_template
    assert chat_tokens(Processor(), CHAT[1:]) == expected


def test_bad_input() -> None:
    assert template_of(ToyTokenizer()) is None
    with pytest.raises(tk.ArgumentError, match="no chat template; pass texts"):
        chat_tokens(ToyTokenizer(), CHAT)
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no such role') }}"
    with pytest.raises(tk.ArgumentError, match="does not take these messages: no such role"):
        rendered(tokenizer, CHAT)
    empty: tuple[Any, ...] = ("", [])
    for prompt in empty:
        with pytest.raises(tk.ArgumentError, match="the prompt is empty"):
            encode_dialogue(tokenizer, prompt)
