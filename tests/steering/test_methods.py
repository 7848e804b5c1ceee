"""Oracles: numpy's SVD, gradients at the optimum, and formulas written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import truthkit as tk
from truthkit.activations.moments import Moments
from truthkit.steering.extraction.methods import METHODS, LayerData, find_method


def data(pairs: int = 40, features: int = 6) -> tuple[LayerData, np.ndarray, np.ndarray]:
    generator = torch.Generator().manual_seed(5)
    negative = torch.randn(pairs, features, generator=generator, dtype=torch.float64) * torch.arange(1, features + 1)
    positive = negative + torch.randn(pairs, features, generator=generator, dtype=torch.float64) + 0.7
    rows = torch.stack([positive, negative], dim=1).view(-1, features)

    def moments(x: torch.Tensor) -> Moments:
        found = Moments(1, features, scatter=True)
        found.update(x[None])
        return found

    return (
        LayerData(moments(positive), moments(negative), moments(positive - negative), rows),
        positive.numpy(),
        negative.numpy(),
    )


def parallel(a: Any, b: Any) -> float:
    a, b = np.asarray(a), np.asarray(b)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_mean() -> None:
    known, positive, negative = data()
    np.testing.assert_allclose(METHODS["mean"].fit(known), positive.mean(0) - negative.mean(0), rtol=1e-12)


def test_pca_of_signed_and_of_centred_differences() -> None:
    known, positive, negative = data()
    differences = positive - negative
    for centred, rows in (
        (False, np.concatenate([differences, -differences])),
        (True, differences - differences.mean(0)),
    ):
        expected = np.linalg.svd(rows)[2][0]
        found = METHODS["pca"].fit(known, centred=centred)
        assert abs(parallel(found, expected)) == pytest.approx(1, abs=1e-9)
        assert parallel(found, differences.mean(0)) > 0


@pytest.mark.parametrize(("pairs", "features"), [(40, 6), (5, 30)])
@pytest.mark.parametrize("l2", [0.1, 10.0])
def test_logistic_weights_are_optimal(pairs: int, features: int, l2: float) -> None:
    """At the optimum of the penalised log-loss its gradient is zero; found here by plain gradient code."""
    known, _, _ = data(pairs, features)
    assert known.rows is not None
    x = (known.rows - known.rows.mean(0)) / known.rows.std(0, correction=0)
    target = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(pairs)
    w, b = (
        torch.zeros(features, dtype=torch.float64, requires_grad=True),
        torch.zeros((), dtype=torch.float64, requires_grad=True),
    )
    optimiser = torch.optim.LBFGS(
        [w, b], max_iter=2000, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(x @ w + b, target, reduction="sum") + l2 / 2 * w @ w
        loss.backward()
        return loss

    optimiser.step(closure)
    expected = w.detach() / known.rows.std(0, correction=0)
    assert parallel(METHODS["logistic"].fit(known, l2=l2), expected) == pytest.approx(1, abs=1e-8)


def test_lda_with_given_and_estimated_shrinkage() -> None:
    known, positive, negative = data()
    within = (np.cov(positive.T) + np.cov(negative.T)) / 2
    level, difference = np.trace(within) / 6, positive.mean(0) - negative.mean(0)
    expected = np.linalg.solve(0.7 * within + 0.3 * level * np.eye(6), difference)
    assert parallel(METHODS["lda"].fit(known, shrinkage=0.3), expected) == pytest.approx(1, abs=1e-9)
    assert parallel(METHODS["lda"].fit(known, shrinkage=1.0), difference) == pytest.approx(1, abs=1e-9)
    assert parallel(METHODS["lda"].fit(known), expected) > 0.9


def test_contrastive_pca() -> None:
    known, positive, negative = data()
    d = positive - negative
    matrix = d.T @ d / len(d) - 0.5 * np.cov(negative.T)
    expected = np.linalg.eigh(matrix)[1][:, -1]
    assert abs(parallel(METHODS["contrastive_pca"].fit(known, alpha=0.5), expected)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_vector_points_to_the_positives_and_is_as_long_as_the_means_are_apart(name: str) -> None:
    known, positive, negative = data()
    vector = METHODS[name].fit(known).numpy()
    apart = (positive.mean(0) - negative.mean(0)) @ vector / np.linalg.norm(vector)
    assert apart == pytest.approx(np.linalg.norm(vector))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_one_pair_is_enough_to_run(name: str) -> None:
    known, _, _ = data(pairs=1)
    assert bool(METHODS[name].fit(known).isfinite().all())


def test_unknown_methods_and_options() -> None:
    with pytest.raises(tk.ArgumentError, match=r"method is 'caa'.*; expected one of 'mean'"):
        find_method("caa", {})
    with pytest.raises(tk.ArgumentError, match="'logistic' takes no 'l1'; it takes l2"):
        find_method("logistic", {"l1": 1.0})
    known, _, _ = data()
    with pytest.raises(tk.ArgumentError, match="l2 is 0"):
        METHODS["logistic"].fit(known, l2=0)
    with pytest.raises(tk.ArgumentError, match="shrinkage is 2"):
        METHODS["lda"].fit(known, shrinkage=2)
