"""What every scorer returns: counts per item, and the metrics that are functions of their totals."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from truthkit.statistics.intervals import RESAMPLES, FloatArray, Interval, Measure, bootstrap, ratio, wilson


@dataclass(frozen=True)
class Score:
    """A scored set of answers.

    Attributes:
        counts: what each item adds to the totals; (items, columns).
        clusters: each item's image or question, the unit that intervals resample.
        measure: from totals (..., columns) to named metrics (...).
        items: one record per item, in order, for reading and for comparing runs.
        config: what the numbers depend on, the parser for one.
        shares: whether every metric is a share, from 0 to 1.
        support: from totals to how many items those metrics rest on that don't rest on all.
    """

    counts: FloatArray
    clusters: list[Hashable]
    measure: Measure
    items: list[dict[str, Any]] = field(repr=False)
    config: dict[str, Any] = field(default_factory=dict)
    shares: bool = True
    support: Measure | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """How many items every metric rests on."""
        own = self.support(self.counts.sum(axis=0)) if self.support else {}
        return {name: int(own.get(name, len(self.clusters))) for name in self.metrics}

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric over all items; NaN where it has nothing to rest on."""
        return {name: float(value) for name, value in self.measure(self.counts.sum(axis=0)).items()}

    def intervals(self, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Interval]:
        """A percentile bootstrap interval of every metric; whole images or questions are drawn.

        Where a share is 0 or 1 in every resample, the interval is Wilson's, for the number of images or questions, or
        of the items that the metric rests on where these are fewer. One image or question has none: both ends are NaN.
        """
        found = bootstrap(self.counts, self.measure, self.clusters, level=level, resamples=resamples, seed=seed)
        clusters, sizes = len(set(self.clusters)), self.sizes
        for name, interval in found.items():
            if self.shares and interval.low == interval.high and interval.low in (0, 1):
                total = min(clusters, sizes[name])
                found[name] = wilson(interval.low * total, total, level=level)
        return found


def mean_score(
    rows: FloatArray,
    names: Sequence[str],
    clusters: Sequence[Hashable],
    items: list[dict[str, Any]],
    config: dict[str, Any],
    *,
    shares: bool = True,
) -> Score:
    """A score whose metrics are means over items; `rows` has a column of ones, then one for each name."""

    def measure(totals: FloatArray) -> Mapping[str, FloatArray]:
        return {name: ratio(totals[..., column], totals[..., 0]) for column, name in enumerate(names, 1)}

    return Score(rows, list(clusters), measure, items, config, shares)
