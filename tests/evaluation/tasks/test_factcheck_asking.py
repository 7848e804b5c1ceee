"""Claims under decoders and steering, against the fact-checker, which reads verdicts by other code."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import truthkit as tk
from tests.factcheck.cases import ChatTokenizer
from tests.tiny import tiny
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.tasks.factcheck.asking import check
from truthkit.factcheck.checker import FactChecker
from truthkit.factcheck.claims import LABELS_3, Claim
from truthkit.factcheck.dialogue import Form
from truthkit.factcheck.guide import Guide
from truthkit.text.encode import encode_dialogue

CLAIMS = [
    Claim("1", "The Great Wall of China is visible from the Moon.", "false"),
    Claim("2", "Water boils at 100 degrees at sea level.", "true", evidence="At sea level water boils at 100 degrees."),
]


@pytest.fixture(scope="module")
def toy() -> tuple[Any, Any]:
    """A tiny random model, and a tokenizer of one token per character with a chat template."""
    return tiny("llama", max_position_embeddings=1024), ChatTokenizer()


def ask(toy: Any, decoder: str = "greedy", **options: Any) -> Asking:
    return Asking(*toy, parse_spec(decoder), {}, max_new_tokens=4, **options)


def vector(toy: Any) -> tk.SteeringVector:
    config = toy[0].config
    direction = 2 * torch.randn(config.hidden_size, generator=torch.Generator().manual_seed(3))
    return tk.SteeringVector({2: direction}, config.num_hidden_layers)


def test_equals_the_fact_checker(toy: Any) -> None:
    found = check(ask(toy), CLAIMS, LABELS_3, explain=True)
    checker = FactChecker(*toy, max_new_tokens=4)
    for one, expected in zip(found, checker.check_all(CLAIMS), strict=True):
        assert (one["verdict"], one["explanation"]) == (expected.verdict, expected.explanation)
        assert one["probabilities"] == pytest.approx(expected.probabilities, abs=1e-4)


@pytest.mark.parametrize("positions", ["generated", "prompt", "all"])
def test_steered_as_a_guide_steers(toy: Any, positions: str) -> None:
    """Oracle: the fact-checker's own guides, which tell prompt and answer apart by themselves."""
    own = vector(toy)
    checker = FactChecker(*toy, vectors=[Guide(own, 1.5, positions)], max_new_tokens=4)
    expected = checker.check_all(CLAIMS)
    with own.steer(toy[0], strength=1.5, positions=positions, allow_other_model=True) as steering:
        found = check(ask(toy, steerings=[steering]), CLAIMS, LABELS_3, explain=True)
    for one, other in zip(found, expected, strict=True):
        assert one["probabilities"] == pytest.approx(other.probabilities, abs=1e-4)
        assert one["explanation"] == other.explanation


def test_decoders_act_on_verdict_and_explanation(toy: Any) -> None:
    """Oracle: the label's log-probability under the decoder, read by hand, one text at a time."""
    found = check(ask(toy, "dola:beta=0,layers=1+2"), CLAIMS[:1], LABELS_3, explain=False)
    model, tokenizer = toy
    scores = []
    messages = Form(LABELS_3, explain=False).prompt(CLAIMS[0])
    start = len(encode_dialogue(tokenizer, messages, "Verdict:"))
    for label in LABELS_3:
        ids = torch.tensor([encode_dialogue(tokenizer, messages, f"Verdict: {label}")])
        with parse_spec("dola:beta=0,layers=1+2").build(model, tokenizer), torch.no_grad():
            log_p = model(input_ids=ids).logits[0].log_softmax(-1)
        scores.append(sum(float(log_p[i - 1, ids[0, i]]) for i in range(start, ids.shape[1])))
    expected = torch.tensor(scores, dtype=torch.float64).softmax(0)
    assert list(found[0]["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-3)
    plain = check(ask(toy), CLAIMS[:1], LABELS_3, explain=True)
    contrasted = check(ask(toy, "dola:beta=0,layers=1+2"), CLAIMS[:1], LABELS_3, explain=True)
    assert plain[0]["explanation"] != contrasted[0]["explanation"]


def test_choices_are_steered_behind_the_prompt_only(toy: Any) -> None:
    """Steering "generated" leaves a choice's first token as it was, since it is predicted by the prompt's last."""
    item = Item(
        "1",
        "Q: What is the capital of France, the country in Europe with the Eiffel Tower?\nA:",
        choices=("P", "I dont know"),
    )
    plain = ask(toy).choose([item])[0]
    with vector(toy).steer(toy[0], positions="generated", allow_other_model=True) as steering:
        steered = ask(toy, steerings=[steering]).choose([item])[0]
        assert steering.prompt_lengths is None
    assert steered[0] == pytest.approx(plain[0], abs=1e-4)
    assert abs(steered[1] - plain[1]) > 0.1


def test_the_constraint_is_for_explanations_only(toy: Any) -> None:
    """`apc` with beta 1 leaves one token of all: greedy answers stay as they are, and so do the labels' scores."""
    plain, constrained = (check(ask(toy, name), CLAIMS, LABELS_3, explain=True) for name in ("greedy", "apc:beta=1"))
    for one, other in zip(plain, constrained, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
        assert one["explanation"] == other["explanation"]
    built: Any = parse_spec("dola:beta=0.1,layers=1+2").build(*toy)
    check(ask(toy, "dola:beta=0.1,layers=1+2"), CLAIMS, LABELS_3, explain=False, fixed=built)
    assert built.beta == 0.1


def test_too_long_a_claim(toy: Any) -> None:
    with pytest.raises(tk.ArgumentError, match="but the model has room for"):
        check(ask(toy), [Claim("1", "word " * 300, "true")], LABELS_3, explain=False)
