"""Which examples each step sees: a function of lengths, seed and step alone, so that a resumed run goes on exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice

import torch

from truthkit.text.tokens import batches, padded
from truthkit.training.chat import Encoded

JITTER = 0.1
"""Lengths that differ by less than this share are mixed from epoch to epoch. Ours."""


def epoch_batches(lengths: Sequence[int], token_budget: int, seed: int, epoch: int) -> list[list[int]]:
    """One pass over all examples in random order, in batches of similar length.

    A batch takes as many examples as make no more than `token_budget` tokens with their padding, and at least one.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    noise = torch.rand(len(lengths), generator=generator, dtype=torch.float64)
    order = (torch.tensor(lengths, dtype=torch.float64) * (1 + JITTER * noise)).argsort(stable=True).tolist()
    found = list(batches(lengths, token_budget, order))
    return [found[i] for i in torch.randperm(len(found), generator=generator).tolist()]


def plan(lengths: Sequence[int], token_budget: int, seed: int, *, steps: int | None, epochs: float) -> list[list[int]]:
    """The examples of every step, epoch after epoch: so many steps, or else so many epochs (parts count)."""

    def endless() -> Iterator[list[int]]:
        for epoch in count():
            yield from epoch_batches(lengths, token_budget, seed, epoch)

    if steps is None:
        whole = sum(len(epoch_batches(lengths, token_budget, seed, epoch)) for epoch in range(int(epochs)))
        part = len(epoch_batches(lengths, token_budget, seed, int(epochs))) * (epochs - int(epochs))
        steps = max(1, whole + round(part))
    return list(islice(endless(), steps))


def collate(rows: Sequence[Encoded], pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """A batch padded on the left: ids, mask, labels (-100: no loss), and how many positions at the end need logits.

    Answers stand at the right edge, so the output head runs for the last `keep` positions alone.
    """
    ids, mask = padded([row.ids for row in rows], pad=pad)
    labels = ids.clone()
    for label, row in zip(labels, rows, strict=True):
        label[: len(label) - len(row.ids) + row.start] = -100
    return ids, mask, labels, max(len(row.ids) - row.start for row in rows) + 1
