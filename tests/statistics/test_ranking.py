"""Figures of rankings. Oracle: every pair counted, every threshold tried, and scikit-learn where it is installed."""

from __future__ import annotations

import math

import numpy as np
import pytest

import truthkit as tk
from truthkit.statistics.intervals import bootstrap
from truthkit.statistics.ranking import (
    area_under_roc,
    calibration_counts,
    calibration_error,
    cross_calibrated,
    level_counts,
    levels,
    precision_area,
    risk_at,
    roc_area,
)


def drawn(count: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, and labels that they say something of."""
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.4
    return np.round(rng.normal(size=count) + labels, 1), labels


def pairs(scores: np.ndarray, labels: np.ndarray) -> float:
    wanted, others = scores[labels][:, None], scores[~labels][None]
    return float(((wanted > others) + (wanted == others) / 2).mean())


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = scores >= threshold
        new = (taken & labels).sum() / labels.sum()
        total += (new - recall) * (taken & labels).sum() / taken.sum()
        recall = new
    return total


def test_areas_count_every_pair_and_threshold() -> None:
    for seed in range(5):
        scores, labels = drawn(seed=seed)
        totals = level_counts(scores, labels).sum(axis=0)
        assert float(roc_area(totals)) == pytest.approx(pairs(scores, labels))
        assert float(precision_area(totals)) == pytest.approx(average_precision(scores, labels))
        assert area_under_roc(scores, labels) == pytest.approx(pairs(scores, labels))


def test_areas_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    scores, labels = drawn(300)
    totals = level_counts(scores, labels).sum(axis=0)
    assert float(roc_area(totals)) == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert float(precision_area(totals)) == pytest.approx(metrics.average_precision_score(labels, scores))


def test_more_scores_than_levels_change_little() -> None:
    rng = np.random.default_rng(1)
    labels = rng.random(4000) < 0.3
    scores = rng.normal(size=4000) + labels
    places, count = levels(scores)
    assert count == 512
    assert (np.diff(places[np.argsort(scores)]) >= 0).all()
    assert float(roc_area(level_counts(scores, labels).sum(axis=0))) == pytest.approx(pairs(scores, labels), abs=1e-4)
    odd = np.array([0.0] * 3000 + list(range(1, 1001)))  # a heap of equal scores stays on one level
    assert len(set(levels(odd)[0][:3000])) == 1
    assert levels(odd)[1] > 100


def test_intervals_draw_clusters() -> None:
    """A resample's area is that of the items of the clusters drawn, as often as they were."""
    scores, labels = drawn(40)
    clusters = [i // 4 for i in range(40)]
    low, high = bootstrap(level_counts(scores, labels), lambda t: {"a": roc_area(t)}, clusters, resamples=300)["a"]
    rng = np.random.default_rng(0)
    draws = rng.multinomial(10, [0.1] * 10, size=300)
    areas = []
    for draw in draws:
        which = np.concatenate([np.arange(4 * c, 4 * c + 4) for c, times in enumerate(draw) for _ in range(times)])
        areas.append(pairs(scores[which], labels[which]))
    assert (low, high) == pytest.approx(np.quantile(areas, [0.025, 0.975]))


def test_risk_is_of_the_lowest_scores() -> None:
    scores, labels = np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, True, False, True])
    totals = level_counts(scores, labels).sum(axis=0)
    assert [float(risk_at(totals, c)) for c in (0.25, 0.5, 0.75, 1.0)] == pytest.approx([0, 0.5, 1 / 3, 0.5])
    tied = level_counts(np.zeros(4), labels).sum(axis=0)
    assert float(risk_at(tied, 0.3)) == pytest.approx(0.5)


def test_nothing_is_divided_by_zero() -> None:
    with np.errstate(all="raise"):
        for labels in (np.zeros(3, bool), np.ones(3, bool)):
            totals = level_counts(np.arange(3.0), labels).sum(axis=0)
            assert math.isnan(float(roc_area(totals)))
            assert math.isnan(float(precision_area(totals))) is not labels.any()
        nothing = np.zeros(6)
        assert math.isnan(float(risk_at(nothing, 0.5)))
        assert float(calibration_error(np.zeros(30))) == 0
    with pytest.raises(tk.ArgumentError, match="every item is to be found; an area"):
        area_under_roc([1.0, 2.0], [True, True])
    with pytest.raises(tk.ArgumentError, match="no item is to be found; an area"):
        area_under_roc([1.0, 2.0], [False, False])
    with pytest.raises(tk.ArgumentError, match="NaN or nothing"):
        levels([1.0, math.nan])
    with pytest.raises(tk.ArgumentError, match="outside of 0 to 1"):
        calibration_counts([1.2], [True])


def test_calibration_error_by_hand() -> None:
    counts = calibration_counts([0.05, 0.08, 0.95, 1.0], [False, True, True, True])
    assert float(calibration_error(counts.sum(axis=0))) == pytest.approx((abs(0.13 - 1) + abs(1.95 - 2)) / 4)


def test_calibration_never_sees_the_cluster_that_it_is_for() -> None:
    scores, labels = drawn(50)
    clusters = [i // 2 for i in range(50)]
    before = cross_calibrated(scores, labels, clusters)
    changed = labels.copy()
    changed[:2] = ~changed[:2]
    after = cross_calibrated(scores, changed, clusters)
    assert before[:2].tolist() == after[:2].tolist()
    assert not np.allclose(before, after)
    assert np.corrcoef(before, scores)[0, 1] > 0.5
    assert cross_calibrated(np.ones(6), [True] * 3 + [False] * 3, range(6)) == pytest.approx(0.5, abs=0.2)
