"""Rows of one batch: each as it would be answered alone.

The oracles choose every token themselves, by a whole forward over the one prompt; those under a decoder are the
library's `generate` of that prompt alone.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.endpoint.conftest import LAYER, Answer, Heard
from truthkit.decoding.spec import parse_spec
from truthkit.endpoint.draws import drawn
from truthkit.endpoint.engine import Engine
from truthkit.endpoint.request import Reader
from truthkit.endpoint.row import Row

QUESTIONS = ("Why?", "What is the longest of all these questions?", "How many, then?")


def chat(question: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], "max_tokens": 12} | fields


@contextmanager
def pushed(model: Any, vector: torch.Tensor) -> Any:
    """`vector` added to what a block gives, by a hook of torch's own."""

    def push(_block: Any, _inputs: Any, output: Any) -> Any:
        return output + vector if isinstance(output, torch.Tensor) else (output[0] + vector, *output[1:])

    handle = model.model.layers[LAYER].register_forward_hook(push)
    try:
        yield
    finally:
        handle.remove()


class Drawing:
    """Draws by the inverse of the cumulative distribution, token by token in plain Python."""

    def __init__(self, seed: int, temperature: float, top_p: float = 1.0):
        self.chance = torch.Generator().manual_seed(seed)
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        p = (scores[0] / self.temperature).softmax(-1).tolist()
        kept, mass = [], 0.0
        for token in sorted(range(len(p)), key=p.__getitem__, reverse=True):
            if mass < self.top_p:
                kept.append(token)
                mass += p[token]
        left = (1 - float(torch.rand((), generator=self.chance, dtype=torch.float64))) * mass
        for token in sorted(kept):
            if (left := left - p[token]) <= 0:
                return torch.tensor([[token]])
        raise AssertionError(left)


def test_draws_follow_the_distribution() -> None:
    """Against the probabilities themselves: 20,000 draws, a chi-squared of 15 degrees of freedom under its 99.9 %."""
    scores = torch.randn(16, generator=torch.Generator().manual_seed(0))
    uniform = 1 - torch.rand(20_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = scores.expand(len(uniform), -1)
    for temperature, top_p in ((0.7, 1.0), (1.5, 1.0), (1.0, 0.6)):
        p = (scores / temperature).softmax(-1)
        order = p.argsort(descending=True)
        kept = order[: int((p[order].cumsum(0) - p[order] < top_p).sum())]
        expected = torch.zeros(16).index_put((kept,), p[kept] / p[kept].sum()) * len(uniform)
        settings = torch.tensor([[temperature], [top_p]]).expand(-1, len(uniform))
        found = drawn(rows, *settings, uniform).bincount(minlength=16)
        assert found[expected == 0].sum() == 0
        assert ((found - expected) ** 2 / expected)[expected > 0].sum() < 37.7


def test_a_wide_nucleus_is_found_too() -> None:
    scores = torch.zeros(1, 5000)
    token = drawn(scores, torch.ones(1), torch.tensor([0.99]), torch.tensor([0.9]))
    assert int(token) == 4499


@torch.no_grad()
def alone(
    engine: Engine, question: str, *, vector: torch.Tensor | None = None, draw: Any = None, limit: int = 12
) -> str:
    prompt = f"<s>user: {question}</s> <s>assistant: "
    ids = engine.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    length = ids.shape[1]
    with pushed(engine.model, torch.zeros(48) if vector is None else vector):
        for _ in range(limit):
            scores = engine.model(ids, use_cache=False).logits[:, -1]
            token = scores.argmax(-1, keepdim=True) if draw is None else draw(scores)
            if int(token) in engine.ends:
                break
            ids = torch.cat([ids, token], dim=1)
    text: str = engine.tokenizer.decode(ids[0, length:], skip_special_tokens=True)
    return text


def test_strengths_temperatures_seeds_and_lengths_are_each_rows_own(
    engine: Engine, answer: Answer, tone: torch.Tensor
) -> None:
    documents = [
        chat(QUESTIONS[0]),
        chat(QUESTIONS[1], steer=3),
        chat(QUESTIONS[2], steer={"tone": -2.5}, max_tokens=5),
        chat(QUESTIONS[0], temperature=0.9, seed=7),
        chat(QUESTIONS[1], temperature=1.3, top_p=0.8, seed=8, steer=3, max_tokens=9),
        chat(QUESTIONS[1], temperature=1.3, seed=8),
    ]
    expected = [
        alone(engine, QUESTIONS[0]),
        alone(engine, QUESTIONS[1], vector=3 * tone),
        alone(engine, QUESTIONS[2], vector=-2.5 * tone, limit=5),
        alone(engine, QUESTIONS[0], draw=Drawing(7, 0.9)),
        alone(engine, QUESTIONS[1], vector=3 * tone, draw=Drawing(8, 1.3, 0.8), limit=9),
        alone(engine, QUESTIONS[1], draw=Drawing(8, 1.3)),
    ]
    heard = answer(*documents)
    assert [one.text for one in heard] == expected
    assert len(set(expected)) == len(expected)
    assert [answer(one)[0].text for one in documents] == expected


@pytest.mark.parametrize("decoder", ["dola:layers=0+1", "icd:amateur=twin,lam=0.5", "icd", "contrastive_search"])
def test_a_decoder_answers_each_as_the_library_does(engine: Engine, answer: Answer, decoder: str) -> None:
    spec = parse_spec(decoder)
    amateur = engine._amateurs["twin"] if "amateur" in spec.options else None
    expected = []
    for question in QUESTIONS:
        ids = engine.tokenizer(f"<s>user: {question}</s> <s>assistant: ", add_special_tokens=False, return_tensors="pt")
        with spec.build(engine.model, engine.tokenizer, amateur=amateur):
            made = engine.model.generate(**ids, max_new_tokens=12, do_sample=False)
        expected.append(engine.tokenizer.decode(made[0, ids.input_ids.shape[1] :], skip_special_tokens=True))
    heard = answer(*(chat(question, decoder=decoder) for question in QUESTIONS))
    assert [one.text for one in heard] == expected


def test_cad_leaves_each_rows_own_passage_out(engine: Engine, answer: Answer) -> None:
    asked = [
        ("It is so.", "It is so. Why?"),
        ("Nobody knows, and it was long ago.", "Nobody knows, and it was long ago."),
    ]
    expected = []
    for passage, text in asked:
        ids = engine.tokenizer(f"<s>user: {text}</s> <s>assistant: ", add_special_tokens=False, return_tensors="pt")
        with tk.CAD(engine.model, engine.tokenizer, context=passage, alpha=2):
            made = engine.model.generate(**ids, max_new_tokens=12, do_sample=False)
        expected.append(engine.tokenizer.decode(made[0, ids.input_ids.shape[1] :], skip_special_tokens=True))
    documents = [chat(text, decoder="cad:alpha=2", context=passage) for passage, text in asked]
    assert [one.text for one in answer(*documents)] == expected


def test_strengths_of_a_decoder_are_each_rows_own(engine: Engine, answer: Answer) -> None:
    """And a row that wants no token is none of them."""
    asked = [("It is so.", 0.5, 12), ("Nobody knows.", 4.0, 12), ("It was.", 2.0, 0), ("We know.", 0.5, 7)]
    expected = []
    for passage, alpha, limit in asked:
        text = f"<s>user: {passage} Why?</s> <s>assistant: "
        ids = engine.tokenizer(text, add_special_tokens=False, return_tensors="pt")
        with tk.CAD(engine.model, engine.tokenizer, context=passage, alpha=alpha):
            made = engine.model.generate(**ids, max_new_tokens=max(limit, 1), do_sample=False)
        new = made[0, ids.input_ids.shape[1] :][:limit]
        expected.append(engine.tokenizer.decode(new, skip_special_tokens=True))
    documents = [
        {"prompt": f"<s>user: {passage} Why?</s> <s>assistant: ", "context": passage}
        | {"decoder": f"cad:alpha={alpha}", "max_tokens": limit, "echo": not limit}
        for passage, alpha, limit in asked
    ]
    expected[2] = documents[2]["prompt"]
    heard = answer(*documents)
    assert [one.text for one in heard] == expected
    assert [one.error for one in heard] == [None] * 4
    assert len(set(expected)) == 4


def test_a_passage_that_is_not_there_goes_in_front_of_the_last_question(smollm2: Any, engine: Engine) -> None:
    reader = Reader(replace(engine.offer, vocabulary=10**6), smollm2[1])
    messages = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}]
    messages.append({"role": "user", "content": "Who wrote it?"})
    wish = reader.chat({"messages": messages, "decoder": "cad", "context": " Ada wrote it. "}).wishes[0]
    assert wish.context == "Ada wrote it.\n\n"
    assert "Ada wrote it.\n\nWho wrote it?" in wish.prompt
    assert wish.prompt.index("Hi.") < wish.prompt.index("Ada")


def test_opera_is_told_at_its_end(engine: Engine, answer: Answer) -> None:
    ids = engine.tokenizer(f"<s>user: {QUESTIONS[0]}</s> <s>assistant: ", add_special_tokens=False, return_tensors="pt")
    with tk.OPERA(engine.model, engine.tokenizer, num_beams=3):
        made = engine.model.generate(**ids, max_new_tokens=8)
    (heard,) = answer(chat(QUESTIONS[0], decoder="opera:num_beams=3", max_tokens=8))
    assert heard.text == engine.tokenizer.decode(made[0, ids.input_ids.shape[1] :], skip_special_tokens=True)


def test_what_cannot_share_a_batch_is_of_another_kind(engine: Engine, reader: Reader) -> None:
    def kind(**fields: Any) -> Any:
        return engine.kind(reader.chat(chat("Why?", **fields)).wishes[0])

    assert kind() == kind(decoder="greedy") == kind(temperature=1, seed=3) == kind(steer=1) == kind(max_tokens=3)
    long = {"messages": [{"role": "user", "content": "x" * 300}]}
    assert kind() != engine.kind(reader.chat(long).wishes[0])
    assert kind(decoder="opera") != kind(decoder="opera", max_tokens=3)
    assert len({kind(), kind(decoder="dola"), kind(decoder="dola:layers=low"), kind(decoder="icd")}) == 4
    assert kind(decoder="icd") == kind(decoder="icd:lam=2") == kind(decoder="icd:beta=0,lam=0.5")
    assert len({kind(decoder="dola+icd"), kind(decoder="dola:beta=0+icd"), kind(decoder="icd:amateur=twin")}) == 3


def test_a_stop_is_never_shown_and_ends_its_row_alone(engine: Engine, answer: Answer) -> None:
    whole = alone(engine, QUESTIONS[0])
    stop = whole[4:7]
    cut, other = answer(chat(QUESTIONS[0], stop=["never", stop]), chat(QUESTIONS[1]))
    assert (cut.text, cut.finish) == (whole[: whole.index(stop)], "stop")
    assert other.text == alone(engine, QUESTIONS[1])
    almost = answer(chat(QUESTIONS[0], stop=whole[-2:] + "x"))[0]
    assert (almost.text, almost.finish) == (whole, "length")


def test_a_row_that_fails_takes_no_other_with_it(engine: Engine, reader: Reader) -> None:
    """A passage that is not in its prompt is an error of CAD's."""
    good, bad = (reader.chat(chat("So. Why?", decoder="cad", context="So.")).wishes[0] for _ in range(2))
    heard = [Heard(), Heard()]
    wishes = [good, replace(bad, context="Not in there.")]
    engine.answer(
        [
            Row(wish, engine.tokenizer, engine.ends, one, lambda: False, lambda: False)
            for wish, one in zip(wishes, heard, strict=True)
        ]
    )
    assert (heard[0].finish, heard[0].error) == ("length", None)
    assert isinstance(heard[1].error, tk.ArgumentError)


def test_rows_of_clients_that_left_end_at_once(engine: Engine, reader: Reader) -> None:
    steps = 0

    def gone() -> bool:
        nonlocal steps
        steps += 1
        return steps > 4

    row = Row(reader.chat(chat("Why?", max_tokens=400)).wishes[0], engine.tokenizer, [], Heard(), gone, lambda: False)
    forwards = 0

    def count(*_: Any) -> None:
        nonlocal forwards
        forwards += 1

    handle = engine.model.register_forward_pre_hook(count)
    engine.answer([row])
    handle.remove()
    assert (row.finish, row.over) == ("gone", True)
    assert forwards <= 5


def test_log_probabilities_are_those_of_a_forward(engine: Engine, answer: Answer) -> None:
    heard = answer(
        chat(QUESTIONS[0], logprobs=True, top_logprobs=3, temperature=0.5, seed=1, max_tokens=4), chat(QUESTIONS[1])
    )[0]
    ids = engine.tokenizer(f"<s>user: {QUESTIONS[0]}</s> <s>assistant: ", add_special_tokens=False).input_ids
    tokens = [one.token for one in heard.scored]
    with torch.no_grad():
        log_p = engine.model(torch.tensor([ids + tokens])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
    assert [one.log_p for one in heard.scored] == pytest.approx(
        [float(row[token]) for row, token in zip(log_p, tokens, strict=True)], abs=1e-4
    )
    assert [[token for token, _ in one.top] for one in heard.scored] == log_p.topk(3).indices.tolist()


@pytest.mark.parametrize("decoder", ["greedy", "dola:layers=0+1", "icd:amateur=twin,beta=0"])
def test_echo_tells_the_prompts_own_log_probabilities(engine: Engine, answer: Answer, decoder: str) -> None:
    """The oracle: the library's scores of each beginning of the prompt, one `generate` of one token each."""
    spec = parse_spec(decoder)
    amateur = engine._amateurs["twin"] if "amateur" in spec.options else None
    prompts = ["so it is", "a longer one"]
    for heard, prompt in zip(
        answer(*({"prompt": one, "echo": True, "logprobs": 1, "max_tokens": 1, "decoder": decoder} for one in prompts)),
        prompts,
        strict=True,
    ):
        ids = engine.tokenizer(prompt).input_ids
        assert [one.token for one in heard.scored[: len(ids)]] == ids
        assert heard.scored[0].log_p is None
        for length in range(1, len(ids) + 1):
            with spec.build(engine.model, engine.tokenizer, amateur=amateur):
                made = engine.model.generate(
                    torch.tensor([ids[:length]]),
                    attention_mask=torch.ones(1, length, dtype=torch.long),
                    max_new_tokens=1,
                    do_sample=False,
                    output_scores=True,
                    return_dict_in_generate=True,
                )
            log_p = made.scores[0][0].log_softmax(-1)
            if length < len(ids) or len(heard.scored) > len(ids):
                assert heard.scored[length].log_p == pytest.approx(float(log_p[heard.scored[length].token]), abs=1e-3)
                assert heard.scored[length].top[0][0] == int(log_p.argmax())


def test_echo_needs_scores_of_the_prompt(reader: Reader, answer: Answer) -> None:
    document = {"prompt": "so", "echo": True, "logprobs": 1, "max_tokens": 0}
    assert "asks for the scores of the prompt's tokens" in str(answer(document | {"decoder": "icd"})[0].error)
    with pytest.raises(tk.ArgumentError, match="no probability of their own"):
        reader.text(document | {"decoder": "contrastive_search"})
