"""Where a text begins behind its prompt, with tokenizers that merge the two."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

import truthkit as tk
from tests.tiny import tiny
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.tasks.truthfulqa.written import judge
from truthkit.likelihood.continuation import continued
from truthkit.likelihood.scoring_model import ScoringModel


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

    def read(text: str) -> Any:
        return tokenizer(text.replace(": yes", ":"))

    return read
