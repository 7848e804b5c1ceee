"""Intervals and paired tests, against published values, enumeration and loops over resamples."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import truthkit as tk
from tests.each import each
from truthkit.statistics.intervals import Interval, bootstrap, cluster_totals, mcnemar, paired_bootstrap, ratio, wilson


def mean(totals: np.ndarray) -> dict[str, np.ndarray]:
    return {"mean": ratio(totals[..., 1], totals[..., 0])}


@each(
    ("successes", "total", "low", "high"),
    [  # R. Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_published_values(successes: int, total: int, low: float, high: float) -> None:
    assert wilson(successes, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_at_the_edges() -> None:
    assert wilson(20, 20).high == 1
    assert wilson(0, 0) == Interval(0, 1)
    with pytest.raises(tk.ArgumentError, match="successes is 3 of 2"):
        wilson(3, 2)
    with pytest.raises(tk.ArgumentError, match="level is 95"):
        wilson(1, 2, level=95)


def test_ratio_of_nothing_is_zero() -> None:
    assert ratio([1, 0, 3], [2, 0, 0]).tolist() == [0.5, 0, 0]


def test_bootstrap_is_that_of_a_loop_over_clusters() -> None:
    """Oracle: draw the clusters one by one, put their items together, take the mean."""
    draw = random.Random(1)
    clusters = [i // 3 for i in range(60)]
    values = [draw.gauss(cluster % 5, 1) for cluster in clusters]
    by_cluster = [[v for v, c in zip(values, clusters, strict=True) if c == name] for name in range(20)]
    means = []
    for _ in range(4000):
        items = list(itertools.chain.from_iterable(draw.choices(by_cluster, k=20)))
        means.append(sum(items) / len(items))
    found = bootstrap([[1, v] for v in values], mean, clusters)["mean"]
    assert found == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.06)
    alone = bootstrap([[1, v] for v in values], mean)["mean"]
    assert alone.high - alone.low < 0.8 * (found.high - found.low), "items of a cluster are not independent"


def test_bootstrap_is_seeded_and_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).random((50, 2))
    first = bootstrap(rows, mean, seed=3)
    assert bootstrap(rows, mean, seed=3) == first
    assert bootstrap(rows, mean, seed=4) != first
    monkeypatch.setattr("truthkit.statistics.intervals._CELLS", 333)
    assert bootstrap(rows, mean, seed=3)["mean"] == pytest.approx(first["mean"], rel=1e-12)


def test_bootstrap_covers() -> None:
    """95 % intervals of a proportion over 100 clusters hold the truth in about 95 of 100 data sets."""
    draw = np.random.default_rng(7)
    held = 0
    for seed in range(200):
        rate = draw.beta(6, 4, size=100)
        right = draw.random((100, 4)) < rate[:, None]
        rows = np.stack([np.full(100, 4), right.sum(axis=1)], axis=1)
        low, high = bootstrap(rows, mean, resamples=400, seed=seed)["mean"]
        held += low <= 0.6 <= high
    assert 180 <= held <= 199


def test_paired_bootstrap_uses_the_pairs() -> None:
    draw = np.random.default_rng(0)
    before = draw.normal(0, 10, 80)
    after = before + draw.normal(0.5, 1, 80)
    tables = [np.stack([np.ones(80), values], axis=1) for values in (before, after)]
    found = paired_bootstrap(*tables, mean)["mean"]
    assert found.value == pytest.approx((after - before).mean())
    half = 1.96 * (after - before).std(ddof=1) / 80**0.5
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.05)
    assert found.p < 0.05
    same = paired_bootstrap(tables[0], tables[0], mean)["mean"]
    assert same == (0, 0, 0, 1)


def test_mcnemar_published_values() -> None:
    """M. Fagerland and others, BMC Med Res Methodol 13:91 (2013), table 4: airway hyper-responsiveness, 7 against 1."""
    before = [False] * 7 + [True] + [True] * 6 + [False] * 7
    after = [True] * 7 + [False] + [True] * 6 + [False] * 7
    found = mcnemar(before, after)
    assert (found.gained, found.lost) == (7, 1)
    assert (found.p, found.mid_p) == pytest.approx((0.070, 0.039), abs=5e-4)


@each(("gained", "lost"), [(0, 0), (3, 3), (5, 2), (0, 6), (8, 9)])
def test_mcnemar_by_enumeration(gained: int, lost: int) -> None:
    """Oracle: every way that the flips could have gone."""
    found = mcnemar([False] * gained + [True] * lost + [True], [True] * gained + [False] * lost + [True])
    flips = gained + lost
    fewer = [min(k, flips - k) for k in (sum(way) for way in itertools.product((0, 1), repeat=flips))]
    extreme = min(gained, lost)
    assert found.p == pytest.approx(sum(k <= extreme for k in fewer) / 2**flips)
    mid_p = sum((k < extreme) + (k == extreme) / 2 for k in fewer) / 2**flips if flips else 1
    assert found.mid_p == pytest.approx(mid_p, abs=1e-12)


def test_mcnemar_of_many_items() -> None:
    before = np.arange(9000) % 3 == 0
    assert 0 < mcnemar(before, np.roll(before, 1)).p <= 1


def test_cluster_totals_keep_the_order() -> None:
    assert cluster_totals([[1, 2], [3, 4], [5, 6]], ["b", "a", "b"]).tolist() == [[6, 8], [3, 4]]


@each(
    ("call", "message"),
    [
        (lambda: bootstrap(np.zeros((0, 2)), mean), "at least one item"),
        (lambda: bootstrap([[1, 1]], mean, ["a", "b"]), "2 values for 1 items"),
        (lambda: bootstrap([[1, 1]], mean, resamples=0), "resamples is 0"),
        (lambda: paired_bootstrap([[1, 1]], [[1, 1], [1, 0]], mean), "same items"),
        (lambda: mcnemar([True], [True, False]), "one value per item"),
    ],
)
def test_bad_input(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        call()


def test_one_cluster_has_no_interval() -> None:
    """Oracle: every resample of one image is that image; nothing can be said of others."""
    rows = [[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    assert np.isnan(bootstrap(rows, mean, ["a"] * 3)["mean"]).all()
    change = paired_bootstrap(rows, [[1.0, 1.0]] * 3, mean, ["a"] * 3)["mean"]
    assert change.value == pytest.approx(1 / 3)
    assert np.isnan((change.low, change.high)).all()
    assert change.p == 1


def test_draws_without_support_are_left_out() -> None:
    """Oracle: a loop over the draws that have an item of the class."""

    def of_class(totals: np.ndarray) -> dict[str, np.ndarray]:
        with np.errstate(invalid="ignore"):
            return {"share": totals[..., 1] / totals[..., 0], "none": np.full(totals.shape[:-1], np.nan)}

    rows = [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    draw = np.random.default_rng(1)
    taken = [np.array(rows)[draw.integers(4, size=4)].sum(axis=0) for _ in range(4000)]
    shares = [right / count for count, right in taken if count]
    found = bootstrap(rows, of_class)
    assert found["share"] == pytest.approx(np.quantile(shares, [0.025, 0.975]), abs=0.1)
    assert np.isnan(found["none"]).all()
    assert paired_bootstrap(rows, rows, of_class)["none"].p == 1
