"""Tokens and mask: what the loss is taken on, character by character."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from tests.training.toys import chat_tokenizer
from truthkit.factcheck.claims import read_claims
from truthkit.factcheck.dialogue import dialogue
from truthkit.factcheck.examples import reflex_examples
from truthkit.training.chat import Example, encode, encode_all

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


def both_sides(tokenizer: Any, example: Example, limit: int = 1000) -> tuple[str, str]:
    """What is read, and what is learnt."""
    ids, start, _ = encode(tokenizer, example, limit)
    return tokenizer.decode(ids[:start]), tokenizer.decode(ids[start:])


class TestMask:
    def test_chat(self) -> None:
        """The end of the turn is learnt; the template's space behind it is not."""
        read, learnt = both_sides(chat_tokenizer(), Example(ASKED, "Because."))
        assert read == "<s>system: Be brief.</s> <s>user: Why?</s> <s>assistant: "
        assert learnt == "Because.</s>"

    def test_without_a_template(self) -> None:
        """An empty line is no character of this tokenizer: it reads as a space."""
        assert both_sides(chat_tokenizer(None), Example(ASKED, "So.")) == ("Be brief. Why? ", "So.</s>")

    def test_plain(self) -> None:
        assert both_sides(chat_tokenizer(), Example("Q: Why? A:", "So.")) == ("Q: Why? A:", " So.</s>")

    def test_prompt_is_what_inference_sees(self) -> None:
        tokenizer = chat_tokenizer()
        ids, start, _ = encode(tokenizer, Example(ASKED, "Because."), 1000)
        seen = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_dict=True).input_ids
        assert ids[:start] == seen

    def test_a_template_that_rewrites_the_prompt(self) -> None:
        template = "{% if add_generation_prompt %}<s>{% endif %}{{ messages[-1]['content'] }}"
        with pytest.raises(tk.ModelError, match="writes an answered conversation otherwise"):
            encode(chat_tokenizer(template), Example(ASKED, "Because."), 1000)


class TestLength:
    PASSAGES = ("a" * 60, "b" * 40)

    def example(self, answer: str = "Yes.") -> Example:
        content = f"Evidence: {self.PASSAGES[0]} Claim: {self.PASSAGES[1]}"
        return Example([{"role": "user", "content": content}], answer, self.PASSAGES, "claim 7")

    def whole(self) -> int:
        return len(encode(chat_tokenizer(), self.example(), 1000).ids)

    @pytest.mark.parametrize(
        ("less", "left"), [(0, (60, 40)), (1, (59, 40)), (52, (8, 40)), (53, (8, 39)), (84, (8, 8))]
    )
    def test_cut(self, less: int, left: tuple[int, int]) -> None:
        """The first passage gives way, then the second; the answer never."""
        ids, start, cut = encode(chat_tokenizer(), self.example(), self.whole() - less)
        text = chat_tokenizer().decode(ids)
        assert (text.count("a" * 8 + "a" * (left[0] - 8)), cut) == (1, less > 0)
        assert f" Claim: {'b' * left[1]}<" in text
        assert chat_tokenizer().decode(ids[start:]) == "Yes.</s>"
        assert len(ids) == self.whole() - less

    def test_answer_too_long(self) -> None:
        with pytest.raises(tk.ArgumentError, match=r"claim 7: its answer has 5 tokens .* max_length is 20. Raise it"):
            encode(chat_tokenizer(), self.example(), 20)

    def test_skip_long(self) -> None:
        examples = [self.example("Yes."), self.example("y" * 300)]
        encoded, skipped = encode_all(chat_tokenizer(), examples, 150, skip_long=True)
        assert (len(encoded), skipped) == (1, 1)
        with pytest.raises(tk.ArgumentError, match="nothing to train on: 1 examples, none of which fits 150"):
            encode_all(chat_tokenizer(), examples[1:], 150, skip_long=True)

    def test_empty_answer(self) -> None:
        for skip in (False, True):
            with pytest.raises(tk.ArgumentError, match="claim 7: the answer is empty"):
                encode_all(chat_tokenizer(), [self.example(" ")], 1000, skip_long=skip)


def test_real_tokenizer_and_claims(smollm2: Any, shared_data: Path) -> None:
    """No claim's answer loses a character, the prompt is the prompt, and no example is too long."""
    _, tokenizer = smollm2
    claims = read_claims(shared_data / "data/factcheck/rawfc_val.json", gold_as_evidence=True)[:40]
    for claim, example in zip(claims, reflex_examples(claims, formats=("evidence-explained",)), strict=True):
        ids, start, cut = encode(tokenizer, example, 1600)
        answer = tokenizer.decode(ids[start:])
        assert answer == f"Verdict: {claim.label}\nExplanation: {claim.explanation}<|im_end|>"
        asked = dialogue(claim, explain=True, evidence=True, answer=False)
        seen = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True).input_ids
        assert cut or ids[:start] == seen
        assert len(ids) <= 1600
