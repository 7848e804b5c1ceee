"""Oracles: stretches and sentences worked out by hand; cosines by a plain hook."""

from __future__ import annotations

from difflib import SequenceMatcher

import pytest
import torch

import truthkit as tk
from tests.activations.oracle import states
from tests.factcheck.cases import ChatTokenizer, prompt_ids, prompt_of, toy_claims
from tests.tiny import tiny
from truthkit.factcheck.cleaning import Cleaning, Token, aligned_tokens, clean, cleaned, noisy_stretches
from truthkit.steering.vector import SteeringVector

TEXT = "The bill passed. Click here for more on ratings. It was signed in May."


def tokens(text: str, negative: str) -> list[Token]:
    """One token per word; words of `negative` lie against the vector."""
    found, at = [], 0
    for word in text.split(" "):
        stop = at + len(word)
        found.append(
            Token(text[max(at - 1, 0) : stop], max(at - 1, 0), stop, -0.5 if word in negative.split() else 0.5)
        )
        at = stop + 1
    return found


def test_a_noisy_sentence_goes() -> None:
    result = cleaned(TEXT, tokens(TEXT, "Click here for more on ratings."))
    assert result.text == "The bill passed. It was signed in May."
    assert result.original == TEXT
    (gone,) = result.dropped
    assert (gone.text, TEXT[gone.start : gone.stop], gone.match) == ("Click here for more on ratings.",) * 2 + (1.0,)
    assert [token.text.strip() for token in result.tokens if token.dropped] == gone.text.split()
    assert [token.noise for token in result.tokens] == [token.alignment < 0 for token in result.tokens]


def test_a_sentence_goes_by_the_share_of_it_that_matches() -> None:
    noisy = tokens(TEXT, "here for more on")  # four words of six
    assert cleaned(TEXT, noisy).dropped[0].match == pytest.approx(4 / 6)
    assert cleaned(TEXT, noisy, Cleaning(overlap=0.7)).text == TEXT
    words, stretch = ["click", "here", "for", "more", "on", "ratings"], ["here", "for", "more", "on"]
    ratio = SequenceMatcher(None, words, stretch, autojunk=False).ratio()  # Ratcliff–Obershelp: 2 M / T
    assert ratio * (len(words) + len(stretch)) / 2 / len(words) == pytest.approx(4 / 6)


def test_clauses() -> None:
    text = "It passed, click here for more now, and was signed."
    noisy = tokens(text, "click here for more now,")
    assert cleaned(text, noisy, Cleaning(unit="clause")).text == "It passed, and was signed."
    assert cleaned(text, noisy, Cleaning(overlap=0.6)).text == text


def test_one_sentence_stays() -> None:
    everything = [Token(t.text, t.start, t.stop, -0.9 if t.start < 40 else -0.1) for t in tokens(TEXT, "")]
    assert cleaned(TEXT, everything).text == "It was signed in May."
    assert cleaned(TEXT, everything, Cleaning(keep_one=False)).text == ""


@pytest.mark.parametrize(
    ("signs", "options", "stretches"),
    [
        ("+----++", {}, [(1, 5)]),
        ("+---+++", {}, []),  # too short
        ("--+--++", {}, [(0, 5)]),  # four of a window of five
        ("--++---", {}, []),
        ("--++---", {"density": 0.6}, [(0, 7)]),
        ("-----++++-----", {}, [(0, 5), (9, 14)]),
        ("---", {}, []),
        ("---", {"shortest": 3}, [(0, 3)]),
        ("+++", {}, []),
        ("", {}, []),
        ("-+-+-+-+", {"density": 0.5, "window": 2}, [(0, 7)]),
        ("------", {"threshold": -2.0}, []),
    ],
)
def test_stretches(signs: str, options: dict[str, float], stretches: list[tuple[int, int]]) -> None:
    values = [-1.0 if sign == "-" else 1.0 for sign in signs]
    assert noisy_stretches(values, Cleaning(**options)) == stretches  # type: ignore[arg-type]


def test_cosines_by_a_plain_hook() -> None:
    model, claim = tiny("llama", max_position_embeddings=1024), toy_claims(1)[0]
    vector = SteeringVector({1: torch.randn(48), 3: torch.randn(48)}, 4)
    before, said = "Verdict: true\nExplanation: ", "it is so. surely it is not."
    found = aligned_tokens(model, ChatTokenizer(), prompt_of(claim), before, said, vector, layer=3)
    assert "".join(token.text for token in found) == said
    ids = [*prompt_ids(claim), *map(ord, before + said)]
    expected = torch.nn.functional.cosine_similarity(states(model, ids, 3), vector[3][None], dim=1)[-len(said) :]
    assert [token.alignment for token in found] == pytest.approx(expected.tolist(), abs=1e-5)
    assert all(said[token.start : token.stop] == token.text for token in found)
    whole = clean(model, ChatTokenizer(), prompt_of(claim), before, said, vector, layer=3)
    assert whole == cleaned(said, found)


def test_bad_input() -> None:
    model, prompt = tiny("llama", max_position_embeddings=300), prompt_of(toy_claims(1)[0])
    vector = SteeringVector({1: torch.ones(48), 2: torch.ones(48)}, 4)
    with pytest.raises(tk.ArgumentError, match="explanation is empty"):
        clean(model, ChatTokenizer(), prompt, "Verdict: true", " ", vector, layer=1)
    with pytest.raises(tk.ArgumentError, match="explanation is empty"):
        cleaned("", [])
    with pytest.raises(tk.ArgumentError, match="several layers; name the one"):
        clean(model, ChatTokenizer(), prompt, "", "a", vector)
    with pytest.raises(tk.ArgumentError, match=r"prompt with its answer has \d+ tokens.* room for 300"):
        clean(model, ChatTokenizer(), prompt, "", "a" * 200, vector, layer=1)
    with pytest.raises(tk.ArgumentError, match="shares in"):
        Cleaning(density=0.0)
    with pytest.raises(tk.ArgumentError, match="unit is 'word'"):
        Cleaning(unit="word")
