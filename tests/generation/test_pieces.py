"""Pieces add up to the text, whatever the tokens cut through."""

from __future__ import annotations

from typing import Any

import pytest

from truthkit.generation.pieces import Pieces

TEXTS = [
    "Plain words, and\n  spaces.",
    "naïve café — ☕",
    "日本語のテキスト",
    "👩‍🔬 and 🇩🇪!",
    "عربى و עברית",
    " leading",
]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_add_up(smollm2: Any, text: str) -> None:
    _, tokenizer = smollm2
    ids = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    pieces = Pieces(tokenizer)
    said = [pieces(token) for token in ids]
    assert "".join(said) == tokenizer.decode(ids, skip_special_tokens=True) == text
    assert said[-1] == ""
    assert not any("\ufffd" in piece for piece in said)
