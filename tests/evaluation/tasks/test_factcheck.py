"""Oracles: scikit-learn's definitions written out in loops, and values worked out by hand."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

import truthkit as tk
from tests.each import each
from tests.factcheck.cases import ChatTokenizer, tuned
from truthkit.evaluation.tasks.factcheck.scorer import (
    averaged,
    confusion,
    control,
    implied,
    mentioned_verdict,
    mentions_agree,
    paired_tests,
    rouge_l,
    score,
)
from truthkit.factcheck.claims import LABELS_3, LABELS_6
from truthkit.factcheck.verdicts import VerdictScorer
from truthkit.statistics.intervals import wilson

LABELS = ("true", "half", "false")


def drawn(count: int, seed: int = 0) -> tuple[list[str], list[dict[str, float]]]:
    draw = random.Random(seed)
    gold = [draw.choice(LABELS) for _ in range(count)]
    shares = []
    for label in gold:
        values = {one: draw.random() + 0.5 * (one == label) for one in LABELS}
        shares.append({one: value / sum(values.values()) for one, value in values.items()})
    return gold, shares


def test_f_scores_and_calibration_by_loops() -> None:
    gold, shares = drawn(60)
    metrics = score(gold, shares, LABELS).metrics
    guesses = [max(LABELS, key=one.__getitem__) for one in shares]
    f1 = []
    for label in LABELS:
        right = sum(g == p == label for g, p in zip(gold, guesses, strict=True))
        precision, recall = right / guesses.count(label), right / gold.count(label)
        f1.append(2 * precision * recall / (precision + recall))
        assert metrics[f"f1_{label}"] == pytest.approx(f1[-1])
        assert metrics[f"verdict_share_{label}"] == guesses.count(label) / 60
    assert metrics["macro_f1"] == pytest.approx(sum(f1) / 3)
    assert metrics["accuracy"] == pytest.approx(sum(g == p for g, p in zip(gold, guesses, strict=True)) / 60)
    error = 0.0
    for low in range(10):
        inside = [i for i in range(60) if low / 10 <= shares[i][guesses[i]] < (low + 1) / 10]
        if inside:
            confidence = sum(shares[i][guesses[i]] for i in inside) / len(inside)
            error += len(inside) / 60 * abs(confidence - sum(guesses[i] == gold[i] for i in inside) / len(inside))
    assert metrics["ece"] == pytest.approx(error)
    assert all(math.isnan(metrics[name]) for name in ("explanation_words", "rouge_l", "consistency"))


def test_confusion_and_unparsed() -> None:
    sure = {"true": 1.0}
    scored = score(["true", "true", "half"], [sure] * 3, LABELS, verdicts=["true", None, "false"])
    assert confusion(scored)["true"] == {"true": 1, "half": 0, "false": 0, "none": 1}
    assert confusion(scored)["half"]["false"] == 1
    metrics = scored.metrics
    assert metrics["unparsed"] == pytest.approx(1 / 3)
    assert metrics["accuracy"] == pytest.approx(1 / 3)
    assert metrics["f1_true"] == pytest.approx(2 / 3)
    assert metrics["f1_half"] == 0
    assert math.isnan(metrics["f1_false"]), "no claim is false"
    assert metrics["macro_f1"] == pytest.approx(1 / 3)
    assert {name: scored.sizes[name] for name in ("accuracy", "f1_true", "f1_half", "f1_false", "rouge_l")} == {
        "accuracy": 3, "f1_true": 2, "f1_half": 1, "f1_false": 0, "rouge_l": 0,
    }  # fmt: skip


def test_one_class_only() -> None:
    """All right on claims that are all true: nothing is known of the others, and little of one explanation in 16."""
    sure, words = {"true": 0.9, "half": 0.05, "false": 0.05}, [None] * 15 + ["It is true."]
    scored = score(["true"] * 16, [sure] * 16, LABELS, explanations=words, consistent=[None] * 15 + [True])
    metrics, intervals = scored.metrics, scored.intervals(resamples=200)
    assert (metrics["accuracy"], metrics["macro_f1"], metrics["consistency"]) == (1, 1, 1)
    assert intervals["macro_f1"] == wilson(16, 16)
    assert intervals["consistency"] == wilson(1, 1), "of the one that could be told"
    assert math.isnan(metrics["f1_half"])
    assert math.isnan(intervals["f1_half"].low)
    assert scored.sizes["consistency"] == 1
    assert score(["true", "half"], [{"true": 0.5, "half": 0.5}] * 2, LABELS).metrics["unparsed"] == 1, "ties"


def test_explanations() -> None:
    said = ["the cat sat on the mat", None, "yes"]
    scored = score(
        ["true"] * 3,
        [{"true": 1.0}] * 3,
        LABELS,
        explanations=said,
        references=["the cat lay on a mat", "x", None],
        consistent=[True, None, False],
    )
    metrics = scored.metrics
    assert metrics["explanation_words"] == pytest.approx((6 + 1) / 2)
    assert metrics["rouge_l"] == pytest.approx(4 / 6)
    assert metrics["consistency"] == 0.5
    intervals = scored.intervals(resamples=200)
    assert intervals["consistency"].low <= 0.5 <= intervals["consistency"].high


@each(
    ("one", "other", "value"),
    [
        ("the cat", "the cat", 1.0),
        ("The Cat!", "the cat", 1.0),
        ("police killed the gunman", "police kill the gunman", 0.75),
        ("the gunman kill police", "police kill the gunman", 0.5),
        ("a b c d", "d", 0.4),
        ("", "a", 0.0),
        ("a", "", 0.0),
        ("…", "…", 0.0),
    ],
)
def test_rouge_by_hand(one: str, other: str, value: float) -> None:
    assert rouge_l(one, other) == pytest.approx(value)


def test_rouge_by_the_usual_table() -> None:
    draw = random.Random(1)
    for _ in range(50):
        a, b = ([draw.choice("abcd") for _ in range(draw.randint(1, 90))] for _ in range(2))
        table = np.zeros((len(a) + 1, len(b) + 1), int)
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
        assert rouge_l(" ".join(a), " ".join(b)) == pytest.approx(2 * table[-1, -1] / (len(a) + len(b)))


@each(
    ("text", "verdict"),
    [
        ("We rate this claim half true.", "half-true"),
        ("So we rate it Mostly-True, not false.", "mostly-true"),
        ("That is false.", "false"),
        ("That is not true.", None),
        ("It isn't true. We rate it false.", "false"),
        ("Our ruling: pants fire!", "pants-fire"),
        ("The true cost is high.", None),
        ("This was true in 1990, but now it is barely true.", "barely-true"),
        ("Truth matters.", None),
        ("", None),
    ],
)
def test_named_ratings(text: str, verdict: str | None) -> None:
    assert mentioned_verdict(text, LABELS_6) == verdict


def test_agreement_by_words() -> None:
    said = ["It is false.", "It is true.", "Who knows.", None]
    assert mentions_agree(["false", "false", "false", "false"], said, LABELS) == [True, False, None, None]


def test_agreement_by_likelihood() -> None:
    scorer = VerdictScorer(tuned(), ChatTokenizer(), LABELS_3)
    asked = "A fact-checker wrote about a claim: so it is\n\nWhich verdict does this support: true, half, false?"
    (expected,) = scorer.verdicts([[{"role": "user", "content": asked}]])
    assert implied(scorer, ["so it is", " ", None]) == [expected.label, None, None]


def test_a_comparison() -> None:
    gold, shares = drawn(200)
    worse = [dict.fromkeys(LABELS, 1 / 3)] * 200
    before, after = score(gold, worse, LABELS), score(gold, shares, LABELS)
    found = paired_tests(before, after, resamples=500)
    expected = after.metrics["macro_f1"] - before.metrics["macro_f1"]
    assert found.differences["macro_f1"].value == pytest.approx(expected)
    assert found.differences["macro_f1"].p < 0.05
    right = [[item["correct"] for item in one.items] for one in (before, after)]
    assert found.mcnemar is not None
    assert found.mcnemar.gained == sum(new and not old for old, new in zip(*right, strict=True))
    assert set(found.as_dict()) == {"differences", "mcnemar"}
    with pytest.raises(tk.ArgumentError, match="the same claims"):
        paired_tests(before, score(gold, shares, LABELS, ids=[f"x{i}" for i in range(200)]))


def test_runs_of_several_seeds() -> None:
    gold, shares = drawn(80)
    runs = [score(gold, [shares[(i + by) % 80] for i in range(80)], LABELS) for by in (0, 1, 0)]
    both = averaged(runs)
    for name, value in both.metrics.items():
        assert value == pytest.approx(sum(one.metrics[name] for one in runs) / 3, nan_ok=True)
    found = paired_tests(averaged([runs[1]] * 3), both, resamples=300)
    assert found.differences["accuracy"].value > 0
    assert found.mcnemar is None
    with pytest.raises(tk.ArgumentError, match="scores is empty"):
        averaged([])
    with pytest.raises(tk.ArgumentError, match="different claims"):
        averaged([runs[0], score(gold[:5], shares[:5], LABELS)])


def test_controls() -> None:
    train = ["half"] * 5 + ["true"] * 3 + ["false"] * 2
    assert control(train, 2, LABELS) == [{"true": 0.0, "half": 1.0, "false": 0.0}] * 2
    picked = [max(one, key=one.__getitem__) for one in control(train, 4000, LABELS, kind="prior", seed=1)]
    for label, share in (("half", 0.5), ("true", 0.3), ("false", 0.2)):
        assert picked.count(label) / 4000 == pytest.approx(share, abs=0.03)
    with pytest.raises(tk.ArgumentError, match="kind is 'coin'"):
        control(train, 1, LABELS, kind="coin")
    with pytest.raises(tk.ArgumentError, match="train has the labels"):
        control(["maybe"], 1, LABELS)


@each(
    ("options", "message"),
    [
        ({"gold": ["maybe"]}, r"gold\[0\] is 'maybe'"),
        ({"verdicts": ["maybe"]}, r"verdicts\[0\] is 'maybe'"),
        ({"explanations": []}, "explanations has 0 entries for 1 gold"),
        ({"gold": [], "probabilities": []}, "gold has 0 labels"),
        ({"labels": ("true", "true")}, "labels is"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"gold": ["true"], "probabilities": [{"true": 1.0}], "labels": LABELS} | options
    with pytest.raises(tk.ArgumentError, match=message):
        score(given.pop("gold"), given.pop("probabilities"), given.pop("labels"), **given)
