"""Where a text begins behind its prompt, with tokenizers that merge the two."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

import truthkit as tk
from tests.models.folders import byte_tokenizer
from tests.tiny import tiny
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.tasks.truthfulqa.written import judge
from truthkit.likelihood.continuation import continued
from truthkit.likelihood.scoring_model import ScoringModel
from truthkit.text.tokens import text_ids


def merging() -> Any:
    """Letters as tokens, and ": C" as one where they follow each other."""
    letters = [chr(code) for code in range(32, 127)] + ["\n"]
    pairs = [(":", " "), (": ", "C")]
    vocabulary = {token: i for i, token in enumerate([*letters, *(one + other for one, other in pairs)])}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocabulary, pairs)))


def test_cut_where_the_references_cut_or_refused() -> None:
    tokenizer = merging()
    ids = tokenizer("A: Cat").input_ids
    assert continued(tokenizer, "A", ": Cat") == (ids, 1)
    assert continued(tokenizer, "A:", " Cat") == (ids, 2)  # as `whole[len(context):]`: "at" is scored
    for prompt, text, reason in (
        ("A:", " C", "this tokenizer merges the two"),
        ("A:", "", "has no token of its own"),
        ("", "Cat", "no token comes before"),
    ):
        with pytest.raises(tk.ArgumentError, match=reason):
            continued(tokenizer, prompt, text)


def test_one_token_begins_it_and_none_ends_it() -> None:
    """Whether the tokenizer adds either, or a template's text holds the first already; judges and choices likewise."""
    for form in ("$A", "<s> $A", "<s> $A </s>"):
        tokenizer = byte_tokenizer(bos_token="<s>", eos_token="</s>")
        special = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("<s>", "</s>")]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=form, special_tokens=special)
        begins = [special[0][1]] if "<s>" in form else []
        words = tokenizer("A: Cat", add_special_tokens=False).input_ids
        assert continued(tokenizer, "A:", " Cat") == ([*begins, *words], len(begins) + 2)
        assert continued(tokenizer, "<s>A:", " Cat") == ([special[0][1], *words], 3)
        assert text_ids(tokenizer, "A: Cat") == [*begins, *words]


def test_no_score_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In choices, and in judges' answers."""
    model, tokenizer = tiny("llama"), merging()
    asking = Asking(model, tokenizer, parse_spec("greedy"), {})
    for choice in (" C", ""):
        with pytest.raises(tk.ArgumentError, match="has no token of its own"):
            asking.choose([Item("1", "A:", choices=(" D", choice))])
    monkeypatch.setattr(ScoringModel, "_loaded", (model, tokenizer))
    assert all(map(math.isfinite, judge(ScoringModel(), "truth", ["Is it?"], ["So."])))
    monkeypatch.setattr(ScoringModel, "_loaded", (model, _swallows(tokenizer)))
    with pytest.raises(tk.ArgumentError, match="' yes' has no token of its own"):
        judge(ScoringModel(), "truth", ["Is it?"], ["So."])


def _swallows(tokenizer: Any) -> Any:
    """A tokenizer that makes " yes" a part of the colon before it."""

    def read(text: str, **options: Any) -> Any:
        return tokenizer(text.replace(": yes", ":"), **options)

    return read
