"""The order of the data is a function of seed and step."""

from __future__ import annotations

import pytest
import torch

from truthkit.training.batches import collate, epoch_batches, plan
from truthkit.training.chat import Encoded

LENGTHS = torch.randint(5, 60, (100,), generator=torch.Generator().manual_seed(0)).tolist()


def test_every_example_once_and_no_batch_too_large() -> None:
    batches = epoch_batches(LENGTHS, 200, seed=3, epoch=1)
    assert sorted(i for batch in batches for i in batch) == list(range(100))
    assert all(max(LENGTHS[i] for i in batch) * len(batch) <= 200 for batch in batches)
    padded = sum(max(LENGTHS[i] for i in batch) * len(batch) for batch in batches)
    assert padded < 1.15 * sum(LENGTHS)


def test_an_example_longer_than_a_batch_stands_alone() -> None:
    assert sorted(map(sorted, epoch_batches([5, 900, 5], 20, 0, 0))) == [[0, 2], [1]]


def test_another_seed_or_epoch_is_another_order() -> None:
    first = epoch_batches(LENGTHS, 200, 0, 0)
    assert epoch_batches(LENGTHS, 200, 0, 0) == first
    assert first not in (epoch_batches(LENGTHS, 200, 1, 0), epoch_batches(LENGTHS, 200, 0, 1))


@pytest.mark.parametrize(("epochs", "examples"), [(1, 100), (2, 200), (0.5, 50)])
def test_epochs(epochs: float, examples: int) -> None:
    steps = plan(LENGTHS, 200, 0, steps=None, epochs=epochs)
    assert sum(map(len, steps)) == pytest.approx(examples, rel=0.15)


def test_steps_go_on_over_epochs() -> None:
    steps = plan(LENGTHS, 200, 0, steps=24, epochs=1)
    one = epoch_batches(LENGTHS, 200, 0, 0)
    assert steps[: len(one)] == one
    assert steps[len(one) :] == epoch_batches(LENGTHS, 200, 0, 1)[: 24 - len(one)]


def test_collate() -> None:
    ids, mask, labels, keep = collate([Encoded([1, 2, 3, 4], 2, False), Encoded([5, 6], 1, False)], pad=9)
    assert ids.tolist() == [[1, 2, 3, 4], [9, 9, 5, 6]]
    assert mask.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    assert labels.tolist() == [[-100, -100, 3, 4], [-100, -100, -100, 6]]
    assert keep == 3
