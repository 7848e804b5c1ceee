"""Sampling by seed: the right distribution, and the same draw whoever else is in the batch."""

from __future__ import annotations

import math

import pytest
import torch

import truthkit as tk
from tests.tiny import padded_batch, tiny
from truthkit.evaluation.running.sampling import SeededSampling

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -math.inf])


def draws(count: int, **options: float) -> torch.Tensor:
    sampler = SeededSampling(range(count), **options)
    return sampler(torch.zeros(count, 1, dtype=torch.long), LOGITS.expand(count, -1)).argmax(dim=-1)  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_distribution(temperature: float) -> None:
    """χ² of 4,000 draws against the softmax; 16.3 is its 99.9 % point at three degrees of freedom."""
    counts = draws(4000, temperature=temperature).bincount(minlength=5)
    expected = 4000 * (LOGITS / temperature).softmax(dim=-1)
    assert counts[4] == 0
    assert float(((counts - expected) ** 2 / expected)[:4].sum()) < 16.3


def test_nucleus() -> None:
    p = LOGITS.softmax(dim=-1)
    assert p[0] < 0.7 < p[0] + p[1]
    assert set(draws(500, top_p=0.7).tolist()) == {0, 1}
    assert set(draws(500, top_p=0.5).tolist()) == {0}


def test_a_row_alone_and_in_a_batch() -> None:
    model, inputs = tiny("llama"), padded_batch(9, 5, 7)
    seeds = [11, 12, 13]
    options = {"max_new_tokens": 8, "do_sample": False}
    together = model.generate(**inputs, **options, logits_processor=[SeededSampling(seeds)])
    for i, seed in enumerate(seeds):
        ids = inputs["input_ids"][i][inputs["attention_mask"][i].bool()][None]
        alone = model.generate(ids, **options, logits_processor=[SeededSampling([seed])])
        assert alone[0, -8:].tolist() == together[i, -8:].tolist()
    other = model.generate(**inputs, **options, logits_processor=[SeededSampling([1, 2, 3])])
    assert other.tolist() != together.tolist()


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_bad_numbers(options: dict[str, float]) -> None:
    with pytest.raises(tk.ArgumentError, match=next(iter(options))):
        SeededSampling([0], **options)
