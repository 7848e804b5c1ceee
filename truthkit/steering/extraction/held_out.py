"""How well a direction separates held-out texts: AUC, an interval, a permutation null.

The variance of an AUC from n positive and n negative texts is at most A(1 - A)/n, that of a share of n items, so
Wilson's interval of a share holds for it (D. Bamber, *Journal of Mathematical Psychology* 12, 1975).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from truthkit.statistics.intervals import wilson

RESAMPLES = 1000


@dataclass(frozen=True)
class HeldOutScore:
    """One layer's score on held-out pairs.

    Attributes:
        auc: the probability that a positive text lies further along the vector than a negative one; ties count half.
        low, high: 95 % interval: at each end the wider of the percentile bootstrap over groups and of Wilson's for as
            many independent items as there are groups, so that a few pairs that are all right prove little.
        p: share of label permutations (the sides of a group's pairs swapped at random) that score as high.
        p_any: the same for the highest score over all layers: what to quote for the best layer.
        pairs: how many pairs were held out.
        groups: in how many groups.
    """

    auc: float
    low: float
    high: float
    p: float
    p_any: float
    pairs: int
    groups: int

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


def auc(scores: torch.Tensor) -> torch.Tensor:
    """Area under the ROC curve; `scores` (..., pairs, 2), positive then negative, to (...)."""
    positive, negative = scores[..., 0], scores[..., 1].contiguous()
    ordered = negative.sort(dim=-1).values
    positive = positive.contiguous()
    below = torch.searchsorted(ordered, positive, side="left")
    up_to = torch.searchsorted(ordered, positive, side="right")
    return (below + up_to).double().mean(dim=-1) / (2 * negative.shape[-1])


def held_out_scores(projections: torch.Tensor, groups: list[int], *, seed: int) -> list[HeldOutScore]:
    """Score every layer.

    Args:
        projections: how far each text lies along its layer's vector; (layers, pairs, 2), positive then negative.
        groups: the group of every pair.
        seed: for resampling and permuting; all layers see the same draws.
    """
    generator = torch.Generator().manual_seed(seed)
    layers, pairs = projections.shape[:2]
    observed = auc(projections)
    draws = _group_draws(groups, generator)
    resampled = torch.stack([auc(projections[:, draw]) for draw in draws])
    low, high = resampled.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0).tolist()
    number = {group: at for at, group in enumerate(dict.fromkeys(groups))}
    count, of_group = len(number), torch.tensor([number[group] for group in groups])
    wide = [wilson(share * count, count) for share in observed.tolist()]
    null = torch.empty(RESAMPLES, layers, dtype=torch.float64)
    flipped = projections.flip(-1)
    for i in range(RESAMPLES):
        swap = (torch.rand(count, generator=generator) < 0.5)[of_group]
        null[i] = auc(torch.where(swap[None, :, None], flipped, projections))
    p = (1 + (null >= observed - 1e-12).sum(dim=0)) / (1 + RESAMPLES)
    p_any = (1 + (null.amax(dim=1)[:, None] >= observed - 1e-12).sum(dim=0)) / (1 + RESAMPLES)
    return [
        HeldOutScore(
            auc=round(float(observed[i]), 6),
            low=round(min(low[i], wide[i].low), 6),
            high=round(max(high[i], wide[i].high), 6),
            p=round(float(p[i]), 6),
            p_any=round(float(p_any[i]), 6),
            pairs=pairs,
            groups=count,
        )
        for i in range(layers)
    ]


def _group_draws(groups: list[int], generator: torch.Generator) -> list[torch.Tensor]:
    members: dict[int, list[int]] = {}
    for pair, group in enumerate(groups):
        members.setdefault(group, []).append(pair)
    blocks = list(members.values())
    picks = torch.randint(len(blocks), (RESAMPLES, len(blocks)), generator=generator).tolist()
    return [torch.tensor([pair for block in pick for pair in blocks[block]]) for pick in picks]


def split_groups(groups: list[int], share: float, *, seed: int) -> tuple[list[int], list[int]]:
    """Pair numbers to fit on and to hold out: whole groups, drawn at random, until `share` of the pairs is held out."""
    order = torch.randperm(max(groups) + 1, generator=torch.Generator().manual_seed(seed)).tolist()
    sizes = [0] * (max(groups) + 1)
    for group in groups:
        sizes[group] += 1
    held: set[int] = set()
    taken, wanted = 0, share * len(groups)
    for group in order[:-1]:  # at least one group stays to fit on
        if taken >= wanted:
            break
        held.add(group)
        taken += sizes[group]
    fit = [pair for pair, group in enumerate(groups) if group not in held]
    return fit, [pair for pair, group in enumerate(groups) if group in held]
