"""Two rows over the same clusters: difference, interval, test, effect size, power and equivalence.

One rule gives every p-value, of whatever metric: a randomisation test over clusters. A cluster's contribution to a
metric is its jackknife pseudo-value,

    c_i = N · m − (N − 1) · m_without_i,

which for a mean over clusters of one item is just that item's value; d_i is the difference of two rows' contributions.
If a method changes nothing, d_i is as likely as −d_i, so signs are flipped at random: p is the share of flips whose sum
is as far from zero as the sum found, or farther. For right and wrong answers and clusters of one item this is McNemar's
exact test, up to the number of flips. Sums less than a hundredth apart are ties: where clusters are not all of one
size, pseudo-values of equal answers differ a little, and ties broken by that would halve a small p. The bootstrap gives
the intervals; its own p-value is not used: where a method changes a handful of answers, its tails, where a correction
looks, are too light (six of six in one direction: 0.005, exactly 0.03).

Sources: J. W. Tukey, Annals of Mathematical Statistics 29 (1958), on pseudo-values; R. A. Fisher, *The Design of
Experiments* (1935), and E. W. Noreen, *Computer-Intensive Methods for Testing Hypotheses* (1989), on randomisation;
D. J. Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15 (1987), on two one-sided tests; J. Cohen,
*Statistical Power Analysis for the Behavioral Sciences* (1988), on h, d and power.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np

from truthkit.statistics.intervals import FloatArray, Interval, Measure, percentiles, resampled, wilson

_CELLS = 1 << 22
_TIE = 0.01
"""Of a sum: how much nearer to zero another one is as far."""

_NORMAL = NormalDist()
POWER = 0.8


@dataclass(frozen=True)
class Outcome:
    """How a row's answers count.

    Attributes:
        tables: for each seed the totals of every cluster, (clusters, columns), and what is measured of their sum.
        metric: the name of what is compared.
    """

    tables: tuple[tuple[FloatArray, Measure], ...]
    metric: str

    @property
    def clusters(self) -> int:
        """How many there are."""
        return len(self.tables[0][0])

    @cached_property
    def value(self) -> float:
        """The metric, the mean over seeds."""
        return float(np.mean([measure(table.sum(axis=0))[self.metric] for table, measure in self.tables]))

    @cached_property
    def contributions(self) -> FloatArray:
        """Each cluster's pseudo-value, the mean over seeds; (clusters,).

        A cluster without which the metric has nothing to rest on contributes the metric itself.
        """
        n, found = self.clusters, []
        for table, measure in self.tables:
            total = table.sum(axis=0)
            whole = float(measure(total)[self.metric])
            without = np.asarray(measure(total - table)[self.metric], float) if n > 1 else np.full(1, whole)
            found.append(np.where(np.isnan(without), whole, n * whole - (n - 1) * without))
        return np.asarray(np.mean(found, axis=0), float)


@dataclass(frozen=True)
class Change:
    """A row less its reference.

    Attributes:
        value, low, high: the difference and its bootstrap interval.
        p: of no difference, two-sided; not corrected.
        standard_error: of the difference, from the clusters' contributions.
        effect: Cohen's h of two shares, else d, the difference in standard deviations of a cluster's contribution.
        effect_name: "h" or "d".
        equivalence_p: of a difference as large as the margin, or larger; not corrected.
    """

    value: float
    low: float
    high: float
    p: float
    standard_error: float
    effect: float
    effect_name: str
    equivalence_p: float

    def detectable(self, alpha: float) -> float | None:
        """The smallest true difference that a test at `alpha` finds four times in five: (z_{1−α/2} + z_{0.8}) · SE.

        None where no cluster differs, for then nothing says how much they vary.
        """
        if not self.standard_error > 0:
            return None
        return (_NORMAL.inv_cdf(1 - alpha / 2) + _NORMAL.inv_cdf(POWER)) * self.standard_error


def drawn(outcomes: Sequence[Outcome], *, resamples: int, seed: int = 0) -> list[FloatArray]:
    """Every row's metric in the same bootstrap draws of clusters, the mean over seeds; (resamples,) each."""
    kept = [(table, _only(measure, one.metric)) for one in outcomes for table, measure in one.tables]
    values = iter(resampled(kept, resamples=resamples, seed=seed))
    return [np.mean([next(values)[one.metric] for _ in one.tables], axis=0) for one in outcomes]


def interval(outcome: Outcome, draws: FloatArray, *, level: float, share: bool) -> Interval:
    """The percentile interval of a row's metric; Wilson's where a share is 0 or 1 in every draw."""
    if outcome.clusters == 1:
        return Interval(math.nan, math.nan)
    found = percentiles(draws, level)
    if share and found.low == found.high and found.low in (0, 1):
        return wilson(found.low * outcome.clusters, outcome.clusters, level=level)
    return found


def changes(
    pairs: Sequence[tuple[Outcome, Outcome]],
    draws: Sequence[tuple[FloatArray, FloatArray]],
    *,
    margin: float,
    share: bool,
    level: float = 0.95,
    flips: int = 10_000,
    seed: int = 0,
) -> list[Change]:
    """Rows against their references, all over the same clusters in the same order.

    Args:
        pairs: a row and its reference.
        draws: of both, from `drawn`.
        margin: within which a difference does not matter, in units of the metric.
        share: whether the metric is a share.
        level: of the intervals.
        flips: of signs.
        seed: of the flips; they are the same for the same number of clusters.
    """
    if not pairs:
        return []
    contributed = np.stack([row.contributions - reference.contributions for row, reference in pairs])
    tests = randomisation(contributed, flips=flips, seed=seed)
    found = []
    for (row, reference), (own, other), d, p in zip(pairs, draws, contributed, tests, strict=True):
        value, n = row.value - reference.value, len(d)
        error = float(d.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
        span = percentiles(own - other, level) if n > 1 else Interval(math.nan, math.nan)
        effect, name = _effect(row.value, reference.value, error * math.sqrt(n), share)
        equal = equivalence(value, error, n, margin=margin, share=share)
        found.append(Change(value, span.low, span.high, p, error, effect, name, equal))
    return found


def randomisation(contributed: FloatArray, *, flips: int = 10_000, seed: int = 0) -> list[float]:
    """Two-sided p-values of rows of differences of contributions, (rows, clusters), by flips of their clusters' signs.

    p = (1 + #{flips: |Σ ±d_i| ≥ 0.99 |Σ d_i|}) / (1 + flips)
    """
    rows, clusters = contributed.shape
    sums = np.abs(contributed.sum(axis=1))
    scale = np.abs(contributed).sum(axis=1)
    least = (1 - _TIE) * sums - 1e-9 * scale
    generator, count = np.random.default_rng(seed), np.zeros(rows, int)
    some = max(1, _CELLS // clusters)
    for start in range(0, flips, some):
        size = min(some, flips - start)
        bits = np.unpackbits(np.frombuffer(generator.bytes(-(-size * clusters // 8)), np.uint8))[: size * clusters]
        signs = bits.reshape(size, clusters) * 2.0 - 1.0
        count += (np.abs(signs @ contributed.T) >= least).sum(axis=0)
    found: list[float] = [
        1.0 if np.isnan(s) else float(p) for s, p in zip(sums, (1 + count) / (1 + flips), strict=True)
    ]
    return found


def equivalence(value: float, error: float, clusters: int, *, margin: float, share: bool) -> float:
    """The p-value of two one-sided tests: that the difference is the margin or more, in either direction.

        p = max(1 − Φ((margin − value) / SE), 1 − Φ((margin + value) / SE))

    Of shares it is at least (1 − margin)^N, how likely N clusters show no difference at all where one in the share
    `margin` of them would: without it, ten answers that are all the same would prove anything (the rule of three).

    Sources: Schuirmann (1987); J. A. Hanley and A. Lippman-Hand, JAMA 249 (1983).
    """
    if math.isnan(value) or math.isnan(error):
        return 1.0
    unseen = (1 - min(margin, 1.0)) ** clusters if share else 0.0
    if error == 0:
        return unseen if abs(value) < margin else 1.0
    return max(unseen, *(1 - _NORMAL.cdf((margin + sign * value) / error) for sign in (-1, 1)))


def _effect(value: float, reference: float, deviation: float, share: bool) -> tuple[float, str]:
    if share and 0 <= value <= 1 and 0 <= reference <= 1:
        return 2 * math.asin(math.sqrt(value)) - 2 * math.asin(math.sqrt(reference)), "h"
    return (value - reference) / deviation if deviation > 0 else 0.0 if value == reference else math.nan, "d"


def _only(measure: Measure, name: str) -> Measure:
    return lambda totals: {name: measure(totals)[name]}
