"""Oracle: every layer, strength and example by a plain hooked forward of its own, and a loop that takes the best."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import truthkit as tk
from tests.activations.oracle import WHERE
from tests.factcheck.cases import ChatTokenizer, label_score, prompt_ids, prompt_of, toy_claims, tuned
from truthkit.factcheck.claims import LABELS_3
from truthkit.factcheck.gains import Gains, measure_gains
from truthkit.factcheck.guide import Guide
from truthkit.factcheck.verdicts import VerdictScorer
from truthkit.steering.vector import SteeringVector

CLAIMS = toy_claims(5, seed=2)
PROMPTS, GOLD = [prompt_of(claim) for claim in CLAIMS], [claim.label for claim in CLAIMS]
STRENGTHS = (-2.0, 1.0, 3.0)


def vector(seed: int = 0) -> SteeringVector:
    draw = torch.Generator().manual_seed(seed)
    return SteeringVector({layer: 0.4 * torch.randn(48, generator=draw) for layer in range(4)}, 4)


def p_gold(model: Any, number: int, edits: Any = ()) -> float:
    scores = [label_score(model, prompt_ids(CLAIMS[number]), label, edits) for label in LABELS_3]
    return float(torch.tensor(scores).softmax(0)[LABELS_3.index(GOLD[number])])


@pytest.mark.parametrize("positions", ["generated", "prompt"])
def test_the_choice_is_that_of_a_loop(positions: str) -> None:
    model, direction = tuned(), vector()
    scorer = VerdictScorer(model, ChatTokenizer(), LABELS_3)
    gains = measure_gains(scorer, PROMPTS, GOLD, direction, strengths=STRENGTHS, positions=positions)
    best, best_gain = (0, 0.0), 0.0
    unsteered = [p_gold(model, i) for i in range(len(CLAIMS))]
    for row, layer in enumerate(range(4)):
        for column, strength in enumerate(STRENGTHS):
            edits = [(layer, lambda h, by=strength * direction[layer]: h + by, WHERE[positions])]
            each = [p_gold(model, i, edits) - before for i, before in enumerate(unsteered)]
            gain = sum(each) / len(each)
            assert float(gains.mean[row, column]) == pytest.approx(gain, abs=1e-4)
            spread = sum((one - gain) ** 2 for one in each) ** 0.5 / len(each)
            assert float(gains.error[row, column]) == pytest.approx(spread, abs=1e-4)
            if gain > best_gain:
                best, best_gain = (layer, strength), gain
    guide = gains.choose()
    assert (guide.vector.layers[0], guide.strength, guide.positions) == (*best, positions)
    selection = guide.vector.provenance["selection"]
    assert selection["gain"] == pytest.approx(best_gain, abs=1e-4)
    assert len(selection["trials"]) == 12
    assert gains.by_layer()[best[0]][:2] == (best[1], pytest.approx(best_gain, abs=1e-4))


def test_substance_is_chosen_while_style_is_on() -> None:
    model, style, substance = tuned(), vector(1).at(2), vector()
    scorer = VerdictScorer(model, ChatTokenizer(), LABELS_3)
    gains = measure_gains(
        scorer, PROMPTS, GOLD, substance, layers=[-1], strengths=[2.0], guides=[Guide(style, 1.5)], balanced=True
    )
    on = [(2, lambda h: h + 1.5 * style[2], WHERE["generated"])]
    both = [*on, (3, lambda h: h + 2.0 * substance[3], WHERE["generated"])]
    each = torch.tensor([p_gold(model, i, both) - p_gold(model, i, on) for i in range(5)])
    by_class = [each[[i for i in range(5) if GOLD[i] == label]].mean() for label in set(GOLD)]
    assert float(gains.mean[0, 0]) == pytest.approx(float(sum(by_class)) / len(by_class), abs=1e-4)


def made(steered: list[list[list[float]]]) -> Gains:
    """Gains of two examples over an unsteered 0.5."""
    count = len(steered)
    guide = Guide(SteeringVector({i: torch.ones(3) * (i + 1) for i in range(count)}, count), 0.0)
    half = torch.full((2,), 0.5)
    return Gains(tuple(range(count)), (-1.0, 1.0), half, torch.tensor(steered), torch.tensor([0.5, 0.5]), guide)


def test_choosing() -> None:
    gains = made([[[0.9, 0.3], [0.5, 0.5]], [[0.4, 0.4], [0.58, 0.58]]])  # means 0.1, 0, -0.1, 0.08
    assert (gains.choose().vector.layers, gains.choose().strength) == ((0,), -1.0)
    about = gains.choose().vector.provenance["selection"]
    assert about["unit"] == gains.as_dict()["unit"] == "probability of the gold label"
    careful = gains.choose(penalty=1.0)  # the first one's gain is all from one example
    assert (careful.vector.layers, careful.strength) == ((1,), 1.0)
    two = gains.choose(penalty=1.0, layers=2)
    assert (two.vector.layers, two.strength) == ((0, 1), 0.5)
    assert made([[[0.4, 0.4], [0.5, 0.4]]]).choose().strength == 0.0  # nothing gains
    with pytest.raises(tk.ArgumentError, match="layers is 3; expected 1 to 2"):
        gains.choose(layers=3)


def test_bad_input() -> None:
    scorer = VerdictScorer(tuned(), ChatTokenizer(), LABELS_3)
    with pytest.raises(tk.ArgumentError, match="gold has 1 labels for 5 prompts"):
        measure_gains(scorer, PROMPTS, ["true"], vector())
    with pytest.raises(tk.ArgumentError, match="gold has the label 'maybe'"):
        measure_gains(scorer, PROMPTS, ["maybe"] * 5, vector())
    with pytest.raises(tk.ArgumentError, match="layers or strengths is empty"):
        measure_gains(scorer, PROMPTS, GOLD, vector(), strengths=[])
    with pytest.raises(tk.ArgumentError, match="the vector has no layer 3"):
        measure_gains(scorer, PROMPTS, GOLD, vector().at(1), layers=[3])
