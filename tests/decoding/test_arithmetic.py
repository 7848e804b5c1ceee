"""The shared arithmetic, against its definitions in numpy-like plain code."""

from __future__ import annotations

import math

import pytest
import torch

import truthkit as tk
from tests.decoding.oracle import apc, js_divergence
from tests.each import each
from truthkit.decoding.engine.arithmetic import (
    check_finite,
    jensen_shannon,
    most_divergent,
    plausible,
    take_layer,
)
from truthkit.decoding.engine.options import check_beta

SHAPE = (3, 2, 50)


@pytest.fixture
def main() -> torch.Tensor:
    return 3 * torch.randn(SHAPE)


class TestPlausible:
    @each("beta", [0.01, 0.1, 0.5, 1.0])
    def test_definition(self, main: torch.Tensor, beta: float) -> None:
        scores = torch.randn(SHAPE)
        got = plausible(scores, main, beta)
        for row in range(3):
            for position in range(2):
                assert torch.equal(got[row, position], apc(scores[row, position], main[row, position], beta))

    def test_logits_and_log_probabilities_give_the_same(self, main: torch.Tensor) -> None:
        scores = torch.randn(SHAPE)
        assert torch.equal(plausible(scores, main, 0.2), plausible(scores, main.log_softmax(-1), 0.2))

    def test_off(self, main: torch.Tensor) -> None:
        scores = torch.randn(SHAPE)
        assert torch.equal(plausible(scores, main, 0.0), scores)

    def test_best_token_always_stays(self, main: torch.Tensor) -> None:
        kept = plausible(torch.zeros(SHAPE), main, 1.0).isfinite()
        assert torch.equal(kept.long().argmax(-1), main.argmax(-1))

    @pytest.mark.parametrize("beta", [0.0, 0.1])
    def test_impossible_token_stays_so_whatever_its_score(self, main: torch.Tensor, beta: float) -> None:
        main[..., 7] = -math.inf
        scores = torch.zeros(SHAPE)
        scores[..., 7] = math.nan
        assert plausible(scores, main, beta)[..., 7].isneginf().all()

    def test_nan_is_not_hidden(self, main: torch.Tensor) -> None:
        main[0, 0, 3] = math.nan
        assert plausible(main, main, 0.1)[0, 0].isnan().any()


class TestDivergence:
    def test_definition(self, main: torch.Tensor) -> None:
        exits = 3 * torch.randn(4, *SHAPE)
        got = jensen_shannon(main, exits)
        for layer in range(4):
            for row in range(3):
                want = [js_divergence(main[row, at], exits[layer, row, at]) for at in range(2)]
                assert got[layer, row].tolist() == pytest.approx(want, abs=1e-6)

    def test_bounds(self, main: torch.Tensor) -> None:
        """Nothing between equal distributions, ln 2 between disjoint ones."""
        assert jensen_shannon(main, main[None]).abs().max() < 1e-5
        apart = torch.full((1, 1, 4), -math.inf)
        here, there = apart.clone(), apart.clone()
        here[..., 0], there[..., 1] = 0.0, 0.0
        there[..., 2:] = -1e9
        assert jensen_shannon(here, there.clamp_min(-1e9)[None]).item() == pytest.approx(math.log(2))

    def test_ruled_out_tokens(self, main: torch.Tensor) -> None:
        main[..., 10:20] = -math.inf
        assert jensen_shannon(main, torch.randn(2, *SHAPE)).isfinite().all()

    def test_choice_and_gathering(self, main: torch.Tensor) -> None:
        exits = 3 * torch.randn(4, *SHAPE)
        index = most_divergent(main, exits)
        taken = take_layer(exits, index)
        for row in range(3):
            for position in range(2):
                divergences = [js_divergence(main[row, position], exits[j, row, position]) for j in range(4)]
                assert divergences.index(max(divergences)) == index[row, position]
                assert torch.equal(taken[row, position], exits[index[row, position], row, position])


class TestChecks:
    @each("beta", [0, 0.1, 1])
    def test_beta(self, beta: float) -> None:
        assert check_beta(beta) == beta

    @each("beta", [-0.1, 1.1, math.nan, math.inf])
    def test_bad_beta(self, beta: float) -> None:
        with pytest.raises(tk.ArgumentError, match="beta is"):
            check_beta(beta)

    @each("value", [math.nan, math.inf, "1", None, True])
    def test_bad_number(self, value: object) -> None:
        with pytest.raises(tk.ArgumentError, match=r"lam is .*expected a finite number"):
            check_finite("lam", value)  # type: ignore[arg-type]
