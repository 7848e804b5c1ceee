"""Traces, checked against the logits that a second observer sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.tiny import tiny
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.session import Session
from truthkit.decoding.engine.view import ViewLogits
from truthkit.generation.answers import Answer, answer
from truthkit.generation.explain import Trace, TraceProcessor, view_names
from truthkit.generation.settings import AnswerSettings
from truthkit.text.encode import encode_prompt, passage_in_front

QUESTION = "Who wrote Romeo and Juliet?"
PASSAGE = passage_in_front("Romeo and Juliet was written by William Shakespeare.")
TOKENS = 8

DECODERS = {
    "dola": (lambda m, t: tk.DoLa(m, t), ["main", "main exits"]),
    "activation": (lambda m, t: tk.ActivationDecoding(m, t, alpha=3.0), ["main", "main prompt"]),
    "icd": (lambda m, t: tk.ICD(m, t, amateur="prompt", lam=0.8), ["main", "amateur"]),
    "cad": (lambda m, t: tk.CAD(m, t, context=PASSAGE, alpha=4.0), ["main", "without context"]),
    "lol": (
        lambda m, t: tk.LOL(m, t, amateur="prompt", layers=[14, 22], refocus=True, gamma=0.7),
        ["main", "main exits", "amateur", "amateur exits", "refocus"],
    ),
    "lol-dynamic": (
        lambda m, t: tk.LOL(m, t, amateur="prompt", dynamic=True),
        ["main", "main exits", "amateur", "amateur exits"],
    ),
}


class Capture:
    """The main view's and the combined logits of every forward."""

    def __init__(self) -> None:
        self.main: list[torch.Tensor] = []
        self.combined: list[torch.Tensor] = []

    def __call__(self, views: Sequence[ViewLogits], combined: torch.Tensor) -> None:
        self.main.append(views[0].logits[0, -1].clone())
        self.combined.append(combined[0, -1].clone())


class Watched:
    """A decoder whose sessions have one more observer."""

    def __init__(self, decoder: Decoder, capture: Capture):
        self._decoder, self._capture = decoder, capture

    def __enter__(self) -> Session:
        session = self._decoder.__enter__()
        session.observers.append(self._capture)
        return session

    def __exit__(self, *exception: object) -> None:
        self._decoder.__exit__(*exception)


def explained(smollm2: Any, decoder: Any, **settings: Any) -> Answer:
    model, tokenizer = smollm2
    inputs = encode_prompt(tokenizer, PASSAGE + QUESTION)
    return answer(model, tokenizer, decoder, inputs, AnswerSettings(max_new_tokens=TOKENS, **settings), explain=True)


@pytest.mark.parametrize("name", DECODERS)
def test_a_trace_agrees_with_the_logits(name: str, smollm2: Any) -> None:
    """Contributions sum to the combined lead of the emitted token over the main view's choice."""
    make, names = DECODERS[name]
    capture = Capture()
    result = explained(smollm2, Watched(make(*smollm2), capture))
    assert result.trace is not None
    assert [step.token_id for step in result.trace] == result.token_ids
    assert any(step.pushed_by for step in result.trace)
    for step, main, combined in zip(result.trace, capture.main, capture.combined, strict=True):
        assert [view.name for view in step.views] == names
        assert step.combined[0].token_id == step.token_id == int(combined.argmax())
        assert step.combined[0].probability == pytest.approx(float(combined.softmax(-1).max()), rel=1e-5)
        assert step.probability == step.combined[0].probability
        assert step.main_choice == step.views[0].candidates[0]
        assert step.main_choice.token_id == int(main.argmax())
        assert step.main_choice.probability == pytest.approx(float(main.softmax(-1).max()), rel=1e-5)
        if step.token_id == step.main_choice.token_id:
            assert step.pushed_by is None
            assert all(view.contribution is None for view in step.views)
            continue
        pushes = {view.name: view.contribution or 0.0 for view in step.views}
        lead = float(combined[step.token_id] - combined[step.main_choice.token_id])
        assert sum(pushes.values()) == pytest.approx(lead, abs=2e-4)
        assert (step.lead, step.interaction) == (pytest.approx(lead, abs=2e-4), 0)
        assert pushes.pop("main") < 0
        assert step.pushed_by == max(pushes, key=lambda view: pushes[view])


def test_explaining_changes_no_token(smollm2: Any) -> None:
    model, tokenizer = smollm2
    inputs, settings = encode_prompt(tokenizer, QUESTION), AnswerSettings(max_new_tokens=TOKENS)
    for make in (tk.DoLa, tk.ContrastiveSearch, lambda *_: nullcontext()):
        plain, traced = (
            answer(model, tokenizer, make(model, tokenizer), inputs, settings, explain=explain)
            for explain in (False, True)
        )
        assert plain.token_ids == traced.token_ids
        assert plain.trace is None


def test_exits_name_the_layers_that_counted(smollm2: Any) -> None:
    trace = explained(smollm2, tk.DoLa(*smollm2, layers=[10, -4])).trace
    assert trace
    assert {step.views[1].layers for step in trace} <= {(10,), (26,), (-4,)}
    trace = explained(smollm2, tk.LOL(*smollm2, layers=[14, 22])).trace
    assert trace
    assert all(step.views[1].layers == step.views[3].layers == (14, 22) for step in trace)


def test_greedy_is_never_pushed(smollm2: Any) -> None:
    trace = explained(smollm2, nullcontext()).trace
    assert trace
    for step in trace:
        assert step.pushed_by is None
        assert [view.name for view in step.views] == ["main"]
        assert step.combined == step.views[0].candidates


def test_what_else_decided_is_named(smollm2: Any) -> None:
    trace = explained(smollm2, nullcontext(), sample=True, temperature=3.0).trace
    assert trace
    assert {step.pushed_by for step in trace if step.token_id != step.main_choice.token_id} == {"sampling"}
    trace = explained(smollm2, tk.ContrastiveSearch(*smollm2, penalty_alpha=0.9, top_k=8)).trace
    assert trace
    assert {step.pushed_by for step in trace} == {None, "degeneration penalty"}


def test_where_drawn_tokens_stood(smollm2: Any) -> None:
    """Oracle: the combination's own numbers, summed and sorted in float64 over the tokens that the constraint left."""
    capture = Capture()
    result = explained(smollm2, Watched(tk.ICD(*smollm2, lam=0.8, beta=0.01), capture), sample=True, temperature=2.0)
    assert result.trace is not None
    ranks = []
    for step, main, combined in zip(result.trace, capture.main, capture.combined, strict=True):
        left = {i: value for i, value in enumerate(combined.double().tolist()) if value > -1e30}
        assert (standing := step.standing) is not None
        whole = math.fsum(map(math.exp, left.values()))
        probabilities = {i: math.exp(value) / whole for i, value in left.items()}
        entropy = -math.fsum(p * math.log(p) for p in probabilities.values() if p)
        assert standing.entropy == pytest.approx(entropy, abs=1e-4)
        ranks.append(sorted(left, key=left.__getitem__, reverse=True).index(step.token_id) + 1)
        assert standing.rank == ranks[-1]
        before = float(main.double().softmax(-1)[step.token_id])
        assert standing.push == pytest.approx(math.log(probabilities[step.token_id] / before), abs=1e-4)
        assert step.probability == pytest.approx(probabilities[step.token_id], rel=1e-4)
    assert max(ranks) > 1


def test_the_model_alone_pushes_nothing(smollm2: Any) -> None:
    trace = explained(smollm2, nullcontext(), sample=True, temperature=3.0).trace
    assert trace
    assert all(step.standing and step.standing.push == 0.0 for step in trace)


def test_beams_have_no_single_row_to_follow(smollm2: Any) -> None:
    with pytest.raises(tk.ArgumentError, match="beams change rows"):
        explained(smollm2, nullcontext(), num_beams=2)


def test_a_trace_works_under_inference_mode(smollm2: Any) -> None:
    with torch.inference_mode():
        assert explained(smollm2, tk.ICD(*smollm2)).trace


def test_a_trace_processor_changes_nothing() -> None:
    trace = Trace(str, otherwise="sampling")
    scores = torch.randn(1, 5)
    assert TraceProcessor(trace)(torch.zeros(1, 1, dtype=torch.long), scores) is scores
    trace.emitted(int(scores.argmin()))
    (step,) = trace.steps
    assert step.pushed_by == "sampling"
    assert len(step.combined) == 3


def test_what_is_no_views_own_is_interaction() -> None:
    """Oracle: a product, whose gradients by hand are the other factor, counted twice by the two views."""

    class Product(Decoder):
        def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
            return main.logits * views[0].logits

    trace = Trace(str, Product(tiny("llama"), [tk.View("a")]), otherwise="sampling")
    main, other = torch.tensor([3.0, 2.0, 0.5, 0.0]), torch.tensor([1.0, 4.0, 1.0, 1.0])
    views = [ViewLogits(main[None, None]), ViewLogits(other[None, None])]
    trace.observe(views, (main * other)[None, None])
    trace.emitted(1)
    (step,) = trace.steps
    assert step.lead == 8 - 3
    assert [view.contribution for view in step.views] == [4 * (2 - 3), 2 * (4 - 1)]
    assert step.interaction == step.lead - (-4 + 6)
    assert step.pushed_by == "a"


def test_unknown_decoders_get_numbered_views(smollm2: Any) -> None:
    class Mean(Decoder):
        def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
            return main.logits

    model, _ = smollm2
    assert view_names(Mean(model, [tk.View("a"), tk.View("b")])) == ["main", "a", "b"]
