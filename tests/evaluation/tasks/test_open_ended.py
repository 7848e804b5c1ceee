"""Open-ended measures, against their formulas written out."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import truthkit as tk
from truthkit.evaluation.tasks.open_ended import scorer as open_ended

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


def test_references_and_coherence_beside_the_rest() -> None:
    references = ["x y x y x y z", "a b c d e f g", "one two three", "two"]
    found = open_ended.score(TEXTS, log_probs=[-1.0, -2.0, -6.0, None], references=references)
    assert found.metrics["coherence"] == -3
    alone, other = open_ended.score(TEXTS).metrics, open_ended.score(references).metrics
    assert {name: found.metrics[name] for name in alone} == alone
    assert {name: found.metrics[f"reference_{name}"] for name in other} == other
    assert "coherence" not in found.items[3]
    low, high = found.intervals(resamples=50)["coherence"]
    assert -6 <= low <= -3 <= high <= -1


@pytest.mark.parametrize("name", ["log_probs", "references"])
def test_one_for_each_text(name: str) -> None:
    with pytest.raises(tk.ArgumentError, match=f"{name} has 1 entries for 4 texts"):
        open_ended.score(TEXTS, **{name: [None]})


def test_mauve_wants_enough_texts_and_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mauve", None)
    with pytest.raises(tk.MissingExtraError, match="pip install mauve-text"):
        open_ended.mauve(np.zeros((20, 2)), np.zeros((20, 2)))
    monkeypatch.setitem(sys.modules, "mauve", SimpleNamespace(compute_mauve=None))
    with pytest.raises(tk.ArgumentError, match="19 texts and 20 references; MAUVE needs 20"):
        open_ended.mauve(np.zeros((19, 2)), np.zeros((20, 2)))
