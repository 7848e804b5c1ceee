"""Oracle: each trial run by hand."""

from __future__ import annotations

import pytest
import torch

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from tests.tiny import tiny
from truthkit.steering.extraction.encoding import encode_pairs
from truthkit.steering.extraction.pairs import Pair
from truthkit.steering.extraction.select import choose, divergences, effect_on, preference
from truthkit.steering.vector import SteeringVector

TEXTS = ["some ordinary text", "another"]


def vector() -> SteeringVector:
    generator = torch.Generator().manual_seed(0)
    return SteeringVector({layer: torch.randn(48, generator=generator) for layer in (1, 2)}, 4)


def test_divergences_of_a_batch_of_strengths() -> None:
    model, v = tiny("llama"), vector()
    found = divergences(model, ToyTokenizer(), v, TEXTS, layer=2, strengths=[0.0, 0.5, 2.0])
    for strength, value in zip([0.0, 0.5, 2.0], found, strict=True):
        total, tokens = 0.0, 0
        for text in TEXTS:
            ids = torch.tensor([ToyTokenizer()(text).input_ids])
            with torch.no_grad():
                before = model(input_ids=ids).logits[0]
                with v.steer(model, layers=2, strength=strength):
                    after = model(input_ids=ids).logits[0]
            p, q = torch.distributions.Categorical(logits=before), torch.distributions.Categorical(logits=after)
            total += float(torch.distributions.kl_divergence(p, q).sum())
            tokens += ids.shape[1]
        assert value == pytest.approx(total / tokens, rel=1e-3, abs=1e-5)


def test_the_best_fluent_trial_is_chosen() -> None:
    model, v = tiny("llama"), vector()
    pairs = [Pair("yes", "no", prompt="is it so?"), Pair("true", "false")]
    encoded = encode_pairs(pairs, ToyTokenizer())
    calls: list[float] = []

    def effect() -> float:
        calls.append(preference(model, encoded, [0, 1]))
        return calls[-1]

    best, trials = choose(
        model, ToyTokenizer(), v, effect, layers=[1, -2], strengths=[0.1, 0.2, 50.0], texts=TEXTS, max_divergence=0.5
    )
    assert [(t.layer, t.strength) for t in trials] == [(layer, s) for layer in (1, 2) for s in (0.1, 0.2, 50.0)]
    measured = [trial for trial in trials if trial.effect is not None]
    assert [trial.effect for trial in measured] == calls
    assert all(trial.divergence <= 0.5 for trial in measured)
    assert all(trial.divergence > 0.5 for trial in trials if trial.effect is None)
    assert best.effect == max(calls)
    with v.steer(model, layers=best.layer, strength=best.strength):
        assert preference(model, encoded, [0, 1]) == pytest.approx(best.effect)
    with pytest.raises(tk.ArgumentError, match="every trial moves the model"):
        choose(model, ToyTokenizer(), v, effect, layers=[1], strengths=[50.0], texts=TEXTS, max_divergence=1e-6)


def test_preference_by_hand() -> None:
    model = tiny("llama")
    encoded = encode_pairs([Pair("yes", "no", prompt="so?")], ToyTokenizer())
    scores = []
    for ids, prompt in zip(encoded.ids, encoded.prompts, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        scores.append(sum(float(logits[i - 1, ids[i]]) for i in range(prompt, len(ids))) / (len(ids) - prompt))
    assert preference(model, encoded, [0]) == pytest.approx(scores[0] - scores[1], rel=1e-4)


def test_what_makes_the_positive_sides_less_likely_is_not_chosen() -> None:
    """Oracle: means by hand; the greatest preference is refused where it spoils both sides."""
    before = torch.tensor([[-5.0, -5.0], [-4.0, -4.0]], dtype=torch.float64)
    spoilt = effect_on(before, before + torch.tensor([-0.2, -0.6]), [0, 1])
    better = effect_on(before, before + torch.tensor([0.1, 0.0]), [0, 1])
    assert (spoilt.value, spoilt.positive) == pytest.approx((0.4, -0.2))
    assert (better.gain, better.low, better.high) == pytest.approx((0.1, 0.1, 0.1))
    assert effect_on(before, before, [7, 7]).high == float("inf")
    made = iter([spoilt, better, spoilt, spoilt])
    model, v = tiny("llama"), vector()
    options = {"layers": [1], "strengths": [0.1, 0.2], "texts": TEXTS, "max_divergence": 9.0}
    best, trials = choose(model, ToyTokenizer(), v, lambda: next(made), **options)  # type: ignore[arg-type]
    assert best.strength == 0.2
    assert [trial.effect for trial in trials] == [None, pytest.approx(0.1)]
    with pytest.raises(tk.ArgumentError, match=r"positive sides less likely \(at least by 0.2 nats per token\)"):
        choose(model, ToyTokenizer(), v, lambda: next(made), **options)  # type: ignore[arg-type]
