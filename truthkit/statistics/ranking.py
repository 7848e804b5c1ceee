"""How well scores rank, as functions of totals: areas under curves, risk against coverage, calibration.

An item counts in the column of its score's level. What falls on each level, of items to be found and of others, adds up
over items; so `bootstrap` resamples these figures by question or image like all others.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from truthkit.errors import ArgumentError
from truthkit.statistics.intervals import FloatArray, ratio

MOST_LEVELS = 512
"""So many scores that differ are told apart; of more, neighbours share a level, as if they were tied [our choice]."""


def levels(scores: ArrayLike, *, most: int = MOST_LEVELS) -> tuple[Any, int]:
    """The level of each score, from 0 for the lowest, and how many levels there are; equal scores are on one level.

    Raises:
        ArgumentError: a score is NaN, or there are none.
    """
    values = np.asarray(scores, float)
    if values.ndim != 1 or not len(values) or bool(np.isnan(values).any()):
        raise ArgumentError(
            f"scores has shape {values.shape} with NaN or nothing in it; expected numbers, one per item."
        )
    distinct, places = np.unique(values, return_inverse=True)
    count = len(distinct)
    if count <= most:
        return places, count
    ranks = np.searchsorted(np.sort(values), distinct) * most // len(values)
    _, of_level = np.unique(ranks, return_inverse=True)
    return of_level[places], int(of_level.max()) + 1


def level_counts(scores: ArrayLike, found: ArrayLike, *, most: int = MOST_LEVELS) -> FloatArray:
    """Columns for the measures below: (items, 2 · levels), those of `found` items behind the others'."""
    places, count = levels(scores, most=most)
    labels = np.asarray(found, bool)
    if labels.shape != places.shape:
        raise ArgumentError(f"found has shape {labels.shape} for {len(places)} scores; expected one for each.")
    rows = np.zeros((len(places), 2 * count))
    rows[np.arange(len(places)), places + count * labels] = 1
    return rows


def roc_area(totals: FloatArray) -> FloatArray:
    """The chance that one of the items to be found is scored above another one, ties counting half; NaN without both.

    Args:
        totals: of `level_counts`, (..., 2 · levels).
    """
    others, wanted = np.split(totals, 2, axis=-1)
    below = np.cumsum(others, axis=-1) - others / 2
    pairs = others.sum(axis=-1) * wanted.sum(axis=-1)
    return np.where(pairs > 0, ratio((wanted * below).sum(axis=-1), pairs), math.nan)


def precision_area(totals: FloatArray) -> FloatArray:
    """Average precision: Σ (recall gained at a level) · (precision down to it); NaN without items to be found.

    Args:
        totals: of `level_counts`, (..., 2 · levels).
    """
    others, wanted = np.split(totals, 2, axis=-1)
    down = np.cumsum(wanted[..., ::-1], axis=-1)[..., ::-1]
    every = np.cumsum((others + wanted)[..., ::-1], axis=-1)[..., ::-1]
    count = wanted.sum(axis=-1)
    return np.where(count > 0, ratio((wanted * ratio(down, every)).sum(axis=-1), count), math.nan)


def risk_at(totals: FloatArray, coverage: float) -> FloatArray:
    """The share of wanted items among the share `coverage` with the lowest scores; within a level pro rata.

    Args:
        totals: of `level_counts`, (..., 2 · levels).
        coverage: in (0, 1].
    """
    others, wanted = np.split(totals, 2, axis=-1)
    every = others + wanted
    left = coverage * every.sum(axis=-1, keepdims=True) - (np.cumsum(every, axis=-1) - every)
    taken = np.clip(left, 0.0, every)
    return np.where(
        every.sum(axis=-1) > 0, ratio((ratio(taken, every) * wanted).sum(axis=-1), taken.sum(axis=-1)), math.nan
    )


def area_under_roc(scores: ArrayLike, found: ArrayLike) -> float:
    """`roc_area` of one set of items, with every score told apart.

    Raises:
        ArgumentError: no item is to be found, or all are.
    """
    labels = np.asarray(found, bool)
    if labels.all() or not labels.any():
        kind = "every" if labels.any() else "no"
        raise ArgumentError(f"{kind} item is to be found; an area under the ROC curve needs items of both kinds.")
    return float(roc_area(level_counts(scores, labels, most=len(labels)).sum(axis=0)))


def calibration_counts(probabilities: ArrayLike, found: ArrayLike, *, bins: int = 10) -> FloatArray:
    """Columns for `calibration_error`: per bin of equal width how many, the sum of probabilities, how many found."""
    shares, labels = np.asarray(probabilities, float), np.asarray(found, bool)
    if bool(((shares < 0) | (shares > 1) | np.isnan(shares)).any()):
        raise ArgumentError("probabilities has numbers outside of 0 to 1; expected probabilities.")
    rows = np.zeros((len(shares), bins, 3))
    place = np.minimum((shares * bins).astype(int), bins - 1)
    rows[np.arange(len(shares)), place] = np.stack([np.ones(len(shares)), shares, labels], axis=1)
    return rows.reshape(len(shares), -1)


def calibration_error(totals: FloatArray) -> FloatArray:
    """Expected calibration error: Σ over bins |sum of probabilities − how many were found| / all."""
    bins = totals.reshape(*totals.shape[:-1], -1, 3)
    return ratio(np.abs(bins[..., 1] - bins[..., 2]).sum(axis=-1), bins[..., 0].sum(axis=-1))


def cross_calibrated(
    scores: ArrayLike, found: ArrayLike, clusters: Sequence[Hashable], *, folds: int = 5, seed: int = 0
) -> FloatArray:
    """A probability for each item, by a logistic regression of one score fitted on the other folds of clusters.

    A fold whose rest is of one kind gives the share of that rest.
    """
    values, labels = np.asarray(scores, float), np.asarray(found, float)
    spread = float(values.std())
    values = (values - values.mean()) / (spread or 1.0)
    names = list(dict.fromkeys(clusters))
    order = np.random.default_rng(seed).permutation(len(names))
    fold = dict(zip(names, order % folds, strict=True))
    of_item = np.array([fold[cluster] for cluster in clusters])
    result = np.zeros(len(values))
    for one in range(folds):
        held, rest = of_item == one, of_item != one
        if not held.any():
            continue
        if not rest.any():
            result[held] = labels.mean()
            continue
        slope, intercept = _logistic(values[rest], labels[rest])
        result[held] = 1 / (1 + np.exp(-np.clip(slope * values[held] + intercept, -500, 500)))
    return result


def _logistic(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """Slope and intercept that minimise log-loss + slope² / 2, by Newton's method with steps that lower the loss."""
    design = np.stack([x, np.ones_like(x)], axis=1)
    penalty = np.diag([1.0, 1e-6])

    def loss(at: FloatArray) -> float:
        z = design @ at
        return float((np.logaddexp(0.0, z) - y * z).sum() + at @ penalty @ at / 2)

    weights = np.zeros(2)
    value = loss(weights)
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ weights, -500, 500)))
        gradient = design.T @ (p - y) + penalty @ weights
        step = np.linalg.solve((design * (p * (1 - p))[:, None]).T @ design + penalty, gradient)
        size = 1.0
        while (new := loss(weights - size * step)) > value and size > 1e-8:
            size /= 2
        weights, before, value = weights - size * step, value, new
        if before - value < 1e-10:
            break
    return float(weights[0]), float(weights[1])
