"""Pairs in all their forms, and what is wrong with bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from truthkit.steering.extraction.encoding import encode_pairs
from truthkit.steering.extraction.pairs import (
    Pair,
    as_pair,
    checked_pairs,
    pairs_from_labels,
    pairs_from_template,
    read_pairs,
)


def test_a_file_with_bad_lines(tmp_path: Path) -> None:
    lines = [
        b'{"positive": "a", "negative": "b"}',
        b'{"positive": "a"}',
        b"",
        b"{not json",
        b'["c", "d"]',
        b'{"positive": "a", "negative": "  "}',
        b'{"positive": "\xff", "negative": "b"}',
        b'{"positive": "a", "negative": "b", "label": 1}',
        b'{"positive": 3, "negative": "b"}',
        b'{"prompt": "q", "positive": "e", "negative": "f", "group": 7}',
        b"17",
        b'{"positive": [{"role": "user"}], "negative": "b"}',
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"\n".join(lines))
    file = read_pairs(path)
    assert file.pairs == [Pair("a", "b"), Pair("c", "d"), Pair("e", "f", "q", "7")]
    assert [bad.number for bad in file.bad] == [2, 4, 6, 7, 8, 9, 11, 12]
    reasons = " ".join(map(str, file.bad))
    for words in ("line 2: the pair has no negative side", "line 4: not JSON", "line 6: negative is empty",
                  "line 7: not UTF-8", "unknown fields ['label']", "positive is int", "expected messages"):  # fmt: skip
        assert words in reasons
    with pytest.raises(tk.NotAvailableError, match="no such file"):
        read_pairs(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (("a", ""), r"pairs\[0\]: negative is empty"),
        (("a",), r"pairs\[0\]: a pair is"),
        ({"positive": "a", "negative": None}, "no negative side"),
        (Pair, r"a pair is"),
        ({"prompt": "q", "positive": [{"role": "user", "content": "x"}], "negative": "b"}, "plain texts"),
    ],
)
def test_bad_pairs(value: Any, message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        checked_pairs([value])


def test_no_pairs() -> None:
    with pytest.raises(tk.ArgumentError, match="pairs is empty"):
        checked_pairs([])


def test_tokens_of_texts_and_answers() -> None:
    encoded = encode_pairs([Pair("ab", "c"), Pair("ef", "g", prompt="cd")], ToyTokenizer())
    a, b, c, d, e, f, g = (ord(letter) for letter in "abcdefg")
    assert list(encoded.ids) == [[1, a, b], [1, c], [1, c, d, e, f], [1, c, d, g]]
    assert encoded.prompts == [3, 2, 3, 3]


def test_groups_follow_the_prompt() -> None:
    pairs = [
        Pair("a", "b", "q"),
        Pair("c", "d", "q"),
        Pair("a", "b"),
        Pair("a", "b"),
        Pair("a", "b", group="x"),
        Pair("c", "d", group="x"),
    ]
    assert encode_pairs(pairs, ToyTokenizer()).groups == [0, 0, 1, 1, 2, 2]


def test_chat_messages(smollm2: Any) -> None:
    _, tokenizer = smollm2
    question = {"role": "user", "content": "Is the sky blue?"}
    answer = {"role": "assistant", "content": "Yes, it is."}
    encoded = encode_pairs([Pair([question, answer], [question]), Pair("Yes, it is.", "No.", [question])], tokenizer)
    prompt = tokenizer.apply_chat_template([question], add_generation_prompt=True, return_dict=False)
    assert encoded.ids[0] == prompt + tokenizer("Yes, it is.").input_ids
    assert encoded.prompts[0] == len(prompt)
    assert encoded.ids[1] == prompt
    assert encoded.prompts[1] == len(prompt)
    assert encoded.ids[2] == encoded.ids[0]
    with pytest.raises(tk.ArgumentError, match=r"pairs\[0\], positive: chat messages were given"):
        encode_pairs([Pair([question], [question])], ToyTokenizer())


def test_texts_too_long_for_the_model() -> None:
    with pytest.raises(tk.ArgumentError, match=r"pairs\[1\], negative: it has 7 tokens, but the model has room for 6"):
        encode_pairs([Pair("a", "b"), Pair("a", "abcdef")], ToyTokenizer(), limit=6)


def test_pairs_from_templates_and_labels() -> None:
    assert pairs_from_template("I am {}.", ["glad"], ["sad"]) == [Pair("I am glad.", "I am sad.")]
    with pytest.raises(tk.ArgumentError, match="must hold"):
        pairs_from_template("I am.", ["glad"], ["sad"])
    made = pairs_from_labels(["a", "b", "c", "d", "e"], [1, 0, 1, 0, 1])
    assert len(made) == 2
    assert {pair.negative for pair in made} == {"b", "d"}
    assert made == pairs_from_labels(["a", "b", "c", "d", "e"], [1, 0, 1, 0, 1])
    with pytest.raises(tk.ArgumentError, match="one class"):
        pairs_from_labels(["a"], [1])
    with pytest.raises(tk.ArgumentError, match="1 labels for 2 texts"):
        pairs_from_labels(["a", "b"], [1])


def test_dicts_round_trip() -> None:
    assert as_pair(json.loads('{"positive": "a", "negative": "b", "prompt": null}')) == Pair("a", "b")
