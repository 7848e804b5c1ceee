"""Intervals and paired tests for benchmark scores, in numpy, seeded.

The idea that keeps this small and fast: a benchmark metric is a function of column totals. Accuracy is right over all,
F1 comes from three counts, CHAIR_i is one sum over another. So an item is a row of counts, rows of one image or
question are added up into a cluster, and a bootstrap resample is a row of multinomial weights times the cluster table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from truthkit.errors import ArgumentError

FloatArray = NDArray[np.float64]
Measure = Callable[[FloatArray], Mapping[str, FloatArray]]
"""From totals (..., columns) to named metrics (...)."""

RESAMPLES = 10_000
_CELLS = 1 << 22


class Interval(NamedTuple):
    """A confidence interval, both ends included."""

    low: float
    high: float


_NONE = Interval(math.nan, math.nan)


class Difference(NamedTuple):
    """A paired difference `after - before`, its interval, and the two-sided bootstrap p-value."""

    value: float
    low: float
    high: float
    p: float


class McNemar(NamedTuple):
    """Items gained and lost, and the two-sided p-value in its exact and its mid-p form."""

    gained: int
    lost: int
    p: float
    mid_p: float


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> FloatArray:
    """Element-wise quotient; 0 where the denominator is 0."""
    top, bottom = np.asarray(numerator, float), np.asarray(denominator, float)
    top, bottom = np.broadcast_arrays(top, bottom)
    return np.divide(top, bottom, out=np.zeros(top.shape), where=bottom != 0)


def wilson(successes: float, total: float, *, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion of independent items; (0, 1) for no items.

    Source: E. B. Wilson, JASA 22 (1927), equation for the limits of p.
    """
    _check_level(level)
    if not 0 <= successes <= total:
        raise ArgumentError(f"successes is {successes} of {total}; expected 0 to total.")
    if total == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, shrink = successes / total, 1 + z * z / total
    centre = (share + z * z / (2 * total)) / shrink
    half = z / shrink * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == total else min(1.0, centre + half)
    return Interval(low, high)


def bootstrap(
    counts: ArrayLike,
    measure: Measure,
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile intervals of every metric; whole clusters are drawn with replacement.

    Draws in which a metric has nothing to rest on, and is NaN, are left out. Of one cluster both ends are NaN: every
    draw is the same.

    Args:
        counts: what each item adds to the totals; (items, columns).
        measure: from totals (..., columns) to named metrics (...).
        clusters: each item's image or question; items of one cluster are drawn together. Default: every item its own.
        level: share of resamples within the interval.
        resamples: how many are drawn.
        seed: of the draws; they are the same for the same number of clusters.

    Raises:
        ArgumentError: no items, or lengths that do not agree.
    """
    _check_level(level)
    table = cluster_totals(counts, clusters)
    (found,) = resampled([(table, measure)], resamples=resamples, seed=seed)
    one = len(table) == 1
    return {name: _NONE if one else percentiles(values, level) for name, values in found.items()}


def resampled(
    tables: Sequence[tuple[FloatArray, Measure]], *, resamples: int = RESAMPLES, seed: int = 0
) -> list[dict[str, FloatArray]]:
    """Every table's metrics in the same draws of clusters, one value a draw: their differences are paired.

    Args:
        tables: totals of each cluster, as `cluster_totals` gives them, and what is measured of their sum; all of the
            same clusters in the same order.
        resamples: as in `bootstrap`.
        seed: as in `bootstrap`.
    """
    found: list[dict[str, list[FloatArray]]] = [{} for _ in tables]
    for weights in _weights(len(tables[0][0]), resamples, seed):
        for (table, measure), into in zip(tables, found, strict=True):
            for name, values in measure(weights @ table).items():
                into.setdefault(name, []).append(values)
    return [{name: np.concatenate(values) for name, values in one.items()} for one in found]


def paired_bootstrap(
    before: ArrayLike,
    after: ArrayLike,
    measure: Measure,
    clusters: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    measure_after: Measure | None = None,
) -> dict[str, Difference]:
    """Every metric's difference between two runs over the same items in the same order.

    Args:
        before: what each item adds to the totals in one run; (items, columns).
        after: the same in the other run.
        measure: as in `bootstrap`.
        clusters: as in `bootstrap`; both runs see the same draws.
        level: as in `bootstrap`.
        resamples: as in `bootstrap`.
        seed: as in `bootstrap`.
        measure_after: of the other run, where its columns are others; metrics that both have are compared.

    The p-value is twice the smaller share of resamples on one side of zero, ties counted on both, plus one over all.
    Of one cluster, and of a metric with nothing to rest on, the interval is NaN and the p-value 1.
    """
    _check_level(level)
    measures = measure, measure_after or measure
    tables = cluster_totals(before, clusters), cluster_totals(after, clusters)
    if len(tables[0]) != len(tables[1]) or (measure_after is None and tables[0].shape != tables[1].shape):
        raise ArgumentError(f"before has shape {np.shape(before)}, after {np.shape(after)}; expected the same items.")
    olds, news = resampled(list(zip(tables, measures, strict=True)), resamples=resamples, seed=seed)
    first, second = (of(table.sum(axis=0)) for of, table in zip(measures, tables, strict=True))
    result = {}
    for name in (name for name in olds if name in news):
        value, differences = float(second[name] - first[name]), news[name] - olds[name]
        differences = differences[~np.isnan(differences)]
        if len(tables[0]) == 1 or not len(differences):
            result[name] = Difference(value, *_NONE, 1.0)
            continue
        tail = min((differences <= 0).sum(), (differences >= 0).sum())
        p = min(1.0, 2 * float(tail + 1) / (len(differences) + 1))
        result[name] = Difference(value, *percentiles(differences, level), p)
    return result


def mcnemar(before: ArrayLike, after: ArrayLike) -> McNemar:
    """McNemar's test of right and wrong answers to the same items; two-sided, exact and mid-p.

    The mid-p form counts half of the observed table's probability; it is less conservative.
    Source: M. W. Fagerland and others, BMC Medical Research Methodology 13:91 (2013).
    """
    old, new = np.asarray(before, bool), np.asarray(after, bool)
    if old.shape != new.shape or old.ndim != 1:
        raise ArgumentError(f"before has shape {old.shape}, after {new.shape}; expected one value per item in both.")
    gained, lost = int((new & ~old).sum()), int((old & ~new).sum())
    flips, fewer = gained + lost, min(gained, lost)
    ways, below = 1, 0
    for k in range(fewer):
        below += ways
        ways = ways * (flips - k) // (k + 1)
    p = min(1.0, 2 * (below + ways) / 2**flips)
    mid_p = (2 * below + ways) / 2**flips
    if gained == lost > 0:  # the observed table is then its own mirror image
        mid_p = 1 - ways / 2 ** (flips + 1)
    return McNemar(gained, lost, p, mid_p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, in their order: below 0.05 controls the chance of any false finding at 5 %.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted in their order: below 0.05 keeps the expected share of false findings among all at 5 %.

    For independent tests, or such as are positively related.
    Source: Y. Benjamini and Y. Hochberg, Journal of the Royal Statistical Society B 57 (1995).
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__, reverse=True)
    adjusted, most = [0.0] * len(p_values), 1.0
    for rank, place in enumerate(order):
        most = min(most, p_values[place] * len(p_values) / (len(p_values) - rank))
        adjusted[place] = most
    return adjusted


def cluster_totals(counts: ArrayLike, clusters: Sequence[Hashable] | None = None) -> FloatArray:
    """Rows of one cluster added up, in the order of first appearance: (items, columns) to (clusters, columns)."""
    rows = np.asarray(counts, float)
    if rows.ndim != 2 or not len(rows):
        raise ArgumentError(f"counts has shape {rows.shape}; expected (items, columns) with at least one item.")
    if clusters is None:
        return rows
    if len(clusters) != len(rows):
        raise ArgumentError(f"clusters has {len(clusters)} values for {len(rows)} items; expected one for each.")
    numbers: dict[Hashable, int] = {}
    where = [numbers.setdefault(cluster, len(numbers)) for cluster in clusters]
    table = np.zeros((len(numbers), rows.shape[1]))
    np.add.at(table, where, rows)
    return table


def _weights(clusters: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """How often each cluster is drawn, a few resamples at a time; (some, clusters)."""
    if resamples < 1:
        raise ArgumentError(f"resamples is {resamples}; expected at least 1.")
    generator = np.random.default_rng(seed)
    some = max(1, _CELLS // clusters)
    for start in range(0, resamples, some):
        size = min(some, resamples - start)
        yield generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=size).astype(float)


def percentiles(values: FloatArray, level: float) -> Interval:
    """The share `level` in the middle of the values, but for NaN; NaN at both ends where nothing is left."""
    values = values[~np.isnan(values)]
    if not len(values):
        return _NONE
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ArgumentError(f"level is {level}; expected a number between 0 and 1, such as 0.95.")
