"""Open-ended measures, against their formulas written out."""

from __future__ import annotations

import pytest

import truthkit as tk
from truthkit.evaluation import open_ended

TEXTS = ["a b a b a b c", " the cat sat on the cat sat on the mat ", "one", ""]


def plain_counts(text: str, n: int) -> tuple[int, int]:
    """The authors' loop: it stops when an n-gram's end reaches the last word."""
    words = text.strip().split()
    grams, start, end = [], 0, n
    while end < len(words):
        grams.append(" ".join(words[start:end]))
        start, end = start + 1, end + 1
    return len(set(grams)), len(grams)


def test_repetition_and_diversity() -> None:
    found = open_ended.score(TEXTS).metrics
    diversity = 1.0
    for n in (2, 3, 4):
        unique, total = (sum(column) for column in zip(*(plain_counts(text, n) for text in TEXTS), strict=True))
        assert found[f"rep_{n}"] == pytest.approx(1 - unique / total)
        diversity *= unique / total
    assert found["diversity"] == pytest.approx(diversity)


def test_all_ngrams_on_request() -> None:
    assert open_ended.ngram_counts("a b a b", 2) == (2, 2)
    assert open_ended.ngram_counts("a b a b", 2, drop_last=False) == (2, 3)


def test_short_texts_repeat_nothing() -> None:
    found = open_ended.score(["", "one"])
    assert found.metrics == {"rep_2": 0, "rep_3": 0, "rep_4": 0, "diversity": 1}
    assert found.intervals(resamples=10)["diversity"].high == 1


def test_coherence_is_a_mean_of_means() -> None:
    assert open_ended.coherence([[-1, -3], [], [-4]]) == -3
    with pytest.raises(tk.ArgumentError, match="no continuation with a token"):
        open_ended.coherence([[], []])
