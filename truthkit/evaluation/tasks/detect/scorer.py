"""Figures of a detector: how its scores rank false answers, how risk falls with coverage, whether they are calibrated.

Every figure is a function of totals (`truthkit.statistics.ranking`), so that intervals draw whole questions or images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from truthkit.errors import ArgumentError
from truthkit.statistics.intervals import FloatArray, Measure, ratio
from truthkit.statistics.ranking import (
    calibration_counts,
    calibration_error,
    cross_calibrated,
    level_counts,
    precision_area,
    risk_at,
    roc_area,
)
from truthkit.statistics.score import Score

BINS = 10
COVERAGES = tuple(round(0.05 * step, 2) for step in range(1, 21))


@dataclass(frozen=True)
class Unit:
    """One answer, or one object that a caption names.

    Attributes:
        score: the detector's, higher is more likely false.
        false: whether it is.
        length: what the control goes by: characters of the answer, or characters before the object.
    """

    score: float
    false: bool
    length: float


def score(
    units: Sequence[Sequence[Unit]],
    items: list[dict[str, Any]],
    clusters: Sequence[str],
    config: dict[str, Any],
    *,
    probability: bool = False,
) -> Score:
    """Score a detector.

    Metrics: `auroc` and `auprc`, of false units; `base_rate`, the share of them, which is the `auprc` of a score that
    knows nothing; `auroc_length`, `auprc_length` of the length alone, and `auroc_gain`, what the detector has above it;
    `risk_50` and `risk_80`, the share of false units among the half or the four fifths with the lowest scores; `aurc`,
    the mean of that over all coverages; `ece` of the score itself where it is a probability, else of one that a
    logistic regression makes of it, fitted on other questions (five folds).

    Args:
        units: of each question or image; it may have none.
        items: a record of each; what its units are is added.
        clusters: what is drawn together, one for each of `units`.
        config: what the numbers depend on.
        probability: whether the scores are probabilities.

    Raises:
        ArgumentError: a score is no number.
    """
    flat = [one for some in units for one in some]
    of = np.array([number for number, some in enumerate(units) for _ in some], int)
    if any(not math.isfinite(one.score) for one in flat):
        raise ArgumentError("a score is NaN or infinite; load the model in another dtype, as float32.")
    records = [
        item | {"units": [[one.score, one.false, one.length] for one in some]}
        for item, some in zip(items, units, strict=True)
    ]
    if not flat:
        empty = np.zeros((len(units), 4 + 3 * BINS))
        return Score(empty, list(clusters), _measure(1, 1), records, config | {"units": 0}, support=_support(1, 1))
    scores, lengths = (np.array([getattr(one, name) for one in flat], float) for name in ("score", "length"))
    false = np.array([one.false for one in flat])
    shares = scores if probability else cross_calibrated(scores, false, [clusters[i] for i in of])
    parts = [level_counts(scores, false), level_counts(lengths, false), calibration_counts(shares, false, bins=BINS)]
    counts = np.zeros((len(units), sum(part.shape[1] for part in parts)))
    np.add.at(counts, of, np.concatenate(parts, axis=1))
    widths = parts[0].shape[1] // 2, parts[1].shape[1] // 2
    found: dict[str, Any] = {"units": len(flat), "probability": probability}
    totals = counts.sum(axis=0)
    risks = [float(risk_at(totals[: 2 * widths[0]], coverage)) for coverage in COVERAGES]
    found["risk_coverage"] = [[coverage, round(risk, 6)] for coverage, risk in zip(COVERAGES, risks, strict=True)]
    found["reliability"] = _reliability(totals[-3 * BINS :])
    return Score(counts, list(clusters), _measure(*widths), records, config | found, support=_support(*widths))


def _split(totals: FloatArray, width: int, control: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    totals = np.asarray(totals, float)
    return totals[..., : 2 * width], totals[..., 2 * width : 2 * (width + control)], totals[..., -3 * BINS :]


def _measure(width: int, control: int) -> Measure:
    def measure(totals: FloatArray) -> Mapping[str, FloatArray]:
        own, length, bins = _split(totals, width, control)
        count = own.sum(axis=-1)
        areas, lengths = roc_area(own), roc_area(length)
        found = {
            "auroc": areas,
            "auprc": precision_area(own),
            "base_rate": ratio(own[..., width:].sum(axis=-1), count),
            "auroc_length": lengths,
            "auprc_length": precision_area(length),
            "auroc_gain": areas - lengths,
            "risk_50": risk_at(own, 0.5),
            "risk_80": risk_at(own, 0.8),
            "aurc": np.mean([risk_at(own, coverage) for coverage in COVERAGES], axis=0),
            "ece": calibration_error(bins),
        }
        return {name: np.where(count > 0, value, math.nan) for name, value in found.items()}

    return measure


def _support(width: int, control: int) -> Measure:
    def support(totals: FloatArray) -> Mapping[str, FloatArray]:
        count = _split(totals, width, control)[0].sum(axis=-1)
        return dict.fromkeys(_measure(width, control)(totals), count)

    return support


def _reliability(totals: FloatArray) -> list[list[float]]:
    """For each bin that holds some: how many, their mean probability, and the share that is false."""
    rows = totals.reshape(BINS, 3)
    return [[int(n), round(p / n, 6), round(f / n, 6)] for n, p, f in rows.tolist() if n]
