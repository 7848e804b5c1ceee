"""Batches and padding. Oracle: their definition, by counting."""

from __future__ import annotations

import random

import pytest
import torch

from truthkit.text.tokens import batches, padded


@pytest.mark.parametrize("budget", [1, 17, 60, 10_000])
@pytest.mark.parametrize("mixed", [False, True])
def test_batches_hold_every_text_once_and_are_as_full_as_they_may_be(budget: int, mixed: bool) -> None:
    draw = random.Random(budget)
    lengths = [draw.randint(1, 20) for _ in range(40)]
    order = draw.sample(range(40), 40) if mixed else sorted(range(40), key=lengths.__getitem__)
    found = list(batches(lengths, budget, order if mixed else None))
    assert [i for batch in found for i in batch] == order
    for batch, after in zip(found, [*found[1:], []], strict=True):
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= budget
        if after:
            more = [*batch, after[0]]
            assert max(lengths[i] for i in more) * len(more) > budget
    assert list(batches([], 5)) == []


def test_padding_on_either_side() -> None:
    rows = [[5, 6], [], [7, 8, 9]]
    ids, mask = padded(rows)
    assert ids.tolist() == [[0, 5, 6], [0, 0, 0], [7, 8, 9]]
    assert mask.tolist() == [[0, 1, 1], [0, 0, 0], [1, 1, 1]]
    ids, mask = padded(rows, side="right", width=4, pad=3)
    assert ids.tolist() == [[5, 6, 3, 3], [3, 3, 3, 3], [7, 8, 9, 3]]
    assert mask.tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]]
    assert ids.dtype == mask.dtype == torch.long
