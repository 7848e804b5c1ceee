"""Where an answer begins and how it ends, under templates as people have them.

Oracle: what is decoded from where the answer begins, and `apply_chat_template` of the tokenizer itself.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from tests.tiny import tiny
from tests.training.toys import chat_tokenizer
from truthkit.factcheck.verdicts import VerdictScorer
from truthkit.steering.extraction.encoding import encode_pairs
from truthkit.steering.extraction.pairs import Pair
from truthkit.text.encode import encode_dialogue, encode_prompts
from truthkit.text.template import rendered
from truthkit.training.chat import Example, encode, encode_all

TEMPLATES = {
    "refuses system turns": "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
    "{{ raise_exception('no system role here') }}{% endif %}<start>{{ m.role }}: {{ m.content | trim }}<end> "
    "{% endfor %}{% if add_generation_prompt %}<start>model: {% endif %}",
    "leaves system turns out": "{% for m in messages %}{% if m.role != 'system' %}[{{ m.role }}] {{ m.content }}</s>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}",
    "no end of turn": "<sop>{% for m in messages %}<|{{ m.role }}|> {{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}",
    "Vicuna": "{% for m in messages %}{% if m.role=='user' %}USER: {{ m.content }} {% elif m.role=='system' %}"
    "{{ m.content }} {% else %}ASSISTANT: {{ m.content }} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}",
    "R1": "{{ bos_token }}{% for m in messages %}{% if m.role=='user' %}<|User|>{{ m.content }}"
    "{% elif m.role=='system' %}{{ m.content }}{% else %}<|Assistant|>{{ m.content.split('</think>')[-1] }}</s>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|Assistant|><think> {% endif %}",
    "Qwen 3": "{% for m in messages %}<|im_start|>{{ m.role }} {% if m.role=='assistant' and loop.last %}<think>  "
    "</think>  {{ m.content }}{% else %}{{ m.content }}{% endif %}</s> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}",
}
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


def merging_tokenizer() -> Any:
    """Byte pairs in which a space goes with the letter after it, as in most vocabularies."""
    from transformers import PreTrainedTokenizerFast

    characters = ["<s>", "<pad>", *(chr(code) for code in range(32, 127))]
    vocabulary = {token: number for number, token in enumerate([*characters, " Y", " Ye", " Yes"])}
    merges = [(" ", "Y"), (" Y", "e"), (" Ye", "s")]
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", pad_token="<pad>")


def test_the_whole_answer_is_read() -> None:
    """Also where the prompt's last space is part of the answer's first token; and with a tokenizer without offsets."""

    class Slow:
        """The same tokens, without offsets."""

        bos_token = chat_template = None

        def __call__(self, text: str, **_options: Any) -> Any:
            return fast(text)

    fast = merging_tokenizer()
    for tokenizer in (fast, Slow()):
        pair = Pair("Yes, sure", "No, sure", prompt="Q: Is 0 odd? A: ")
        encoded = encode_pairs([pair, Pair("Yes", "No", prompt="A:")], tokenizer)
        answers = ["".join(fast.convert_ids_to_tokens(encoded.ids[i][encoded.prompts[i] :])) for i in range(4)]
        assert answers == [" Yes, sure", "No, sure", "Yes", "No"]
    for name, template in TEMPLATES.items():
        tokenizer = chat_tokenizer(template)
        encoded = encode_pairs([Pair("Because of it.", "No.", prompt=CHAT)], tokenizer)
        for text, answer in ((0, "Because of it."), (1, "No.")):
            ids, start = encoded.ids[text], encoded.prompts[text]
            assert tokenizer.decode(ids[start:]).strip() == answer, name
            whole = rendered(tokenizer, [*CHAT, {"role": "assistant", "content": answer}], "open")
            assert ids == tokenizer(whole, add_special_tokens=False).input_ids, name


def test_a_system_turn_goes_to_the_user_where_the_template_has_none() -> None:
    for name in ("refuses system turns", "leaves system turns out"):
        tokenizer = chat_tokenizer(TEMPLATES[name])
        folded = [{"role": "user", "content": "Be brief.\n\nWhy?"}]
        expected = tokenizer.apply_chat_template(folded, add_generation_prompt=True, return_dict=False)
        assert encode_dialogue(tokenizer, CHAT) == expected
        assert encode_prompts(tokenizer, ["Why?"], system="Be brief.")["input_ids"][0].tolist() == expected
    other = chat_tokenizer("{{ messages[0].content.no.such.thing }}")
    with pytest.raises(tk.ArgumentError, match=r"does not take these messages: .* has no attribute 'no'$"):
        encode_dialogue(other, CHAT)


def test_what_is_learnt_follows_what_generation_sees_and_ends_it() -> None:
    for name, template in TEMPLATES.items():
        tokenizer = chat_tokenizer(template)
        ids, start, _ = encode(tokenizer, Example(CHAT, "Because."), 1000)
        asked = encode_dialogue(tokenizer, CHAT)
        assert ids[:start] == asked, name
        assert encode_dialogue(tokenizer, CHAT, "Because.")[: len(asked)] == asked, name
        assert "Because." in tokenizer.decode(ids[start:]), name
        assert ids.count(tokenizer.eos_token_id) >= 1, name
        assert ids[-1] == tokenizer.eos_token_id, name
    tokenizer = chat_tokenizer(TEMPLATES["Vicuna"])
    full_stop = tokenizer(".", add_special_tokens=False).input_ids[0]
    assert encode(tokenizer, Example(CHAT, "So."), 1000, {full_stop}).ids[-1] == full_stop
    tokenizer.eos_token = None
    assert encode(tokenizer, Example(CHAT, "So"), 1000, {full_stop}).ids[-1] == full_stop
    with pytest.warns(UserWarning, match="an adapter never learns to stop"):
        encode_all(tokenizer, [Example(CHAT, "So")], 1000)


def test_without_a_template_all_commands_write_messages_alike() -> None:
    """Oracle: the text by hand. Verdicts are those of it as a plain prompt."""
    text = "Be brief.\n\nWhy?\n\n"
    tokenizer, model = ToyTokenizer(), tiny("llama")
    assert encode_dialogue(tokenizer, CHAT) == tokenizer(text).input_ids
    assert encode_dialogue(tokenizer, CHAT, "So.") == tokenizer(f"{text}So.").input_ids
    learns = chat_tokenizer(None)
    ids, start, _ = encode(learns, Example(CHAT, "So."), 1000)
    assert ids[:start] == learns(text).input_ids
    scorer = VerdictScorer(model, tokenizer, ("true", "false"))
    torch.testing.assert_close(scorer.scores([CHAT]), scorer.scores([text]))


def test_a_text_that_begins_with_the_first_token_gets_no_second_one() -> None:
    from transformers import AddedToken

    tokenizer = chat_tokenizer()
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    assert isinstance(tokenizer.added_tokens_decoder[1], AddedToken)
    plain = tokenizer("Hi").input_ids
    assert plain[0] == 1
    twice = encode_pairs([Pair("<s>Hi", "Hi"), Pair("i", "i", prompt="<s>H")], tokenizer)
    assert list(twice.ids) == [plain] * 4
    assert twice.prompts == [len(plain), len(plain), 2, 2]
    for texts in (["<s>Hi"], ["<s>Hi", "Hi"], ["Hi", "Hi"]):
        assert encode_prompts(tokenizer, texts, raw=True)["input_ids"].tolist() == [plain] * len(texts)
    assert encode_dialogue(tokenizer, "<s>H", "i") == plain
    ids, start, _ = encode(tokenizer, Example("<s>Hi", "So."), 100)
    assert ids[:start] == plain
