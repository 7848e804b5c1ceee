"""Held-out scores: AUC by counting, intervals and p-values by their meaning."""

from __future__ import annotations

import random

import pytest
import torch

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from tests.tiny import tiny
from truthkit.steering.extraction.encoding import encode_pairs
from truthkit.steering.extraction.held_out import auc, held_out_scores, split_groups
from truthkit.steering.extraction.pairs import Pair


def test_auc_counts_pairs_of_texts() -> None:
    scores = torch.randint(0, 5, (3, 11, 2)).double()
    for row in range(3):
        wins = [(p > n) + 0.5 * (p == n) for p in scores[row, :, 0].tolist() for n in scores[row, :, 1].tolist()]
        assert float(auc(scores)[row]) == pytest.approx(sum(wins) / len(wins))


def test_a_direction_that_means_nothing_is_not_significant_and_one_that_does_is() -> None:
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(2, 60, 2, generator=generator, dtype=torch.float64)
    noise[1, :, 0] += 1.5
    nothing, something = held_out_scores(noise, list(range(60)), seed=0)
    assert nothing.low < 0.5 < nothing.high
    assert nothing.p > 0.05
    assert something.low > 0.7
    assert something.p < 0.01
    assert something.p_any >= something.p
    assert (nothing.pairs, something.pairs) == (60, 60)


def test_false_alarms_are_as_rare_as_promised() -> None:
    generator = torch.Generator().manual_seed(1)
    p = [
        held_out_scores(torch.randn(8, 20, 2, generator=generator, dtype=torch.float64), list(range(20)), seed=i)[
            0
        ].p_any
        for i in range(12)
    ]
    assert sum(value < 0.1 for value in p) <= 4


def test_groups_widen_the_interval() -> None:
    """Ten copies of six pairs are six observations, not sixty."""
    generator = torch.Generator().manual_seed(2)
    few = torch.randn(1, 6, 2, generator=generator, dtype=torch.float64)
    few[..., 0] += 0.8
    copies = few.repeat(1, 10, 1)
    (apart,) = held_out_scores(copies, list(range(60)), seed=0)
    (together,) = held_out_scores(copies, list(range(6)) * 10, seed=0)
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_no_group_is_on_both_sides() -> None:
    groups = [i // 3 for i in range(60)]
    fit, held = split_groups(groups, 0.25, seed=0)
    assert sorted(fit + held) == list(range(60))
    assert len(held) == 15
    assert not {groups[i] for i in fit} & {groups[i] for i in held}
    assert split_groups(groups, 0.25, seed=0) == (fit, held)
    assert split_groups(groups, 0.25, seed=1) != (fit, held)
    assert split_groups([0, 0, 0], 0.5, seed=0) == ([0, 1, 2], [])


def test_copies_are_on_one_side_and_near_copies_are_told_of() -> None:
    """Words drawn at random hold no signal, but a probe that has seen copies of them would tell them apart."""
    draw = random.Random(0)
    words = ["car", "lamp", "red", "big", "house", "small", "new", "dog", "old", "road", "blue", "tree"]
    pairs = [Pair(" ".join(draw.sample(words, 5)), " ".join(draw.sample(words, 5))) for _ in range(20)]
    copied = [Pair(f"{pair.positive}{'!' * i}", f" {pair.negative}") for pair in pairs for i in range(5)]
    model, tokenizer = tiny("llama"), ToyTokenizer()
    assert encode_pairs(copied, tokenizer).groups == [i // 5 for i in range(100)]
    vector = tk.extract(model, tokenizer, [pairs[i // 5] for i in range(100)], method="logistic", held_out=0.4)
    for score in vector.scores.values():
        assert score["low"] < 0.5 < score["high"]
        assert (score["pairs"], score["groups"]) == (40, 8)
        assert score["p_any"] > 0.05
    near = [Pair(f"{pair.positive} and so on", f"{pair.negative} and so on {i}") for pair in pairs for i in range(5)]
    with pytest.warns(UserWarning, match=r"\d+ of 20 held-out pairs are near-copies of pairs"):
        tk.extract(model, tokenizer, near, layers=[1])
