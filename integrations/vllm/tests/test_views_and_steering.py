"""One engine for steered requests and views; the oracle is truthkit on transformers, token for token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import SMALL, arrivals

pytest.importorskip("vllm")

from vllm import LLM, SamplingParams
from vllm.exceptions import VLLMValidationError

from truthkit_vllm.requests import steered, views
from truthkit_vllm.settings import engine

GREEDY = SamplingParams(temperature=0, max_tokens=20)


@pytest.fixture(scope="module")
def llm(folder: Path, reference: dict[str, Any]) -> Iterator[LLM]:
    """With so few blocks and tokens in a step that most prompts have to wait."""
    told = engine(steer=f"{folder / 'love.safetensors'}:layers={reference['layer']}", views=True)
    small = SMALL | {"max_num_batched_tokens": 512, "max_num_seqs": 10, "num_gpu_blocks_override": 30}
    return LLM(reference["model"], **small, **told)


def ids(rows: list[list[int]]) -> list[dict[str, Any]]:
    return [{"prompt_token_ids": row} for row in rows]


def tokens(outputs: list[Any]) -> list[list[int]]:
    return [list(one.outputs[0].token_ids) for one in outputs]


def test_requests_that_ask_for_nothing_are_the_models(llm: LLM, reference: dict[str, Any]) -> None:
    assert tokens(llm.generate(ids(reference["prompts"]), GREEDY, use_tqdm=False)) == reference["greedy"]


def test_strengths_of_one_batch_do_not_mix(llm: LLM, reference: dict[str, Any]) -> None:
    """Each prompt three times; the prefix cache would mix them, were it not told apart."""
    kinds = [("plus", {"love": 2.0}), ("minus", {"love": -2.0}), ("greedy", {"love": 0.0})]
    prompts = [prompt for prompt in ids(reference["prompts"]) for _ in kinds]
    params = [steered(GREEDY, strength) for _ in reference["prompts"] for _, strength in kinds]
    found = tokens(llm.generate(prompts, params, use_tqdm=False))
    for offset, (name, _) in enumerate(kinds):
        assert found[offset :: len(kinds)] == reference[name]


@pytest.mark.parametrize(("decoder", "other"), [("cad", "without"), ("icd", "amateur")])
def test_views(llm: LLM, reference: dict[str, Any], decoder: str, other: str) -> None:
    pairs = zip(ids(reference["prompts"]), ids(reference[other]), strict=True)
    found = tokens(llm.generate(*views(decoder, pairs, GREEDY), use_tqdm=False))
    assert found[::2] == reference[decoder]
    assert found[1::2] == found[::2]


@pytest.mark.parametrize("seed", [0, 1])
def test_all_kinds_under_random_arrivals(llm: LLM, reference: dict[str, Any], seed: int) -> None:
    """16 of 16 prompts under CAD, under ICD, and each steered, in one crowd."""
    requests: list[tuple[Any, SamplingParams]] = []
    for decoder, other in (("cad", "without"), ("icd", "amateur")):
        pairs = zip(ids(reference["prompts"]), ids(reference[other]), strict=True)
        requests += zip(*views(decoder, pairs, GREEDY), strict=True)
    requests += [(prompt, steered(GREEDY, {"love": 2.0})) for prompt in ids(reference["prompts"])]
    found = tokens(arrivals(llm, requests, seed))
    assert found[0:32:2] == reference["cad"]
    assert found[32:64:2] == reference["icd"]
    assert found[64:] == reference["plus"]


def test_views_draw_alike(llm: LLM, reference: dict[str, Any]) -> None:
    drawn = SamplingParams(temperature=0.8, top_p=0.9, presence_penalty=0.5, seed=7, max_tokens=10)
    pairs = zip(ids(reference["prompts"]), ids(reference["amateur"]), strict=True)
    found = tokens(llm.generate(*views("icd", pairs, drawn), use_tqdm=False))
    assert found[::2] == found[1::2] != [row[:10] for row in reference["icd"]]


def test_a_decoder_of_no_strength_is_the_model(llm: LLM, reference: dict[str, Any]) -> None:
    pairs = zip(ids(reference["prompts"]), ids(reference["without"]), strict=True)
    found = tokens(llm.generate(*views("cad:alpha=0", pairs, GREEDY), use_tqdm=False))
    assert found[::2] == reference["greedy"]


def ended(llm: LLM, prompts: list[Any], params: list[SamplingParams]) -> list[tuple[str, str]]:
    """Why requests ended that were refused."""
    outputs = llm.generate(prompts, params, use_tqdm=False)
    return [(one.outputs[0].finish_reason, one.outputs[0].stop_reason) for one in outputs]


def test_what_would_wait_for_ever_is_refused(
    llm: LLM, reference: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt, other = ids([reference["prompts"][0], reference["without"][0]])
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    monkeypatch.setattr(scheduler, "_patience", 0.5)
    both, params = views("cad", [(prompt, other)], GREEDY)
    ((reason, word),) = ended(llm, both[:1], params[:1])
    assert (reason, word.endswith("did not come within 0.5 seconds.")) == ("abort", True)

    (long,) = ids([[5] * 300])
    _, (reason, word) = ended(llm, *views("cad", [(long, long)], GREEDY))
    assert (reason, word.endswith("raise max_num_batched_tokens.")) == ("abort", True)

    many = SamplingParams(temperature=0, max_tokens=480)
    _, (reason, word) = ended(llm, *views("cad", [(prompt, other)], many))
    assert (reason, word.endswith("blocks of 29; lower max_tokens, or add memory.")) == ("abort", True)

    ((reason, word),) = ended(llm, [prompt], [steered(GREEDY, {"hate": 1.0})])
    assert (reason, word) == ("abort", "there is no vector 'hate'; this engine has ['love'].")

    twice = [params[0], params[0]]
    _, (reason, word) = ended(llm, [prompt, prompt], twice)
    assert (reason, "is here already" in word) == ("abort", True)


def test_views_end_together_where_one_is_aborted(llm: LLM, reference: dict[str, Any]) -> None:
    both, params = views("cad", [tuple(ids([reference["prompts"][0], reference["without"][0]]))], GREEDY)
    core = llm.llm_engine
    for name, prompt, param in zip(("main", "other"), both, params, strict=True):
        core.add_request(name, prompt, param)
    core.step()
    core.abort_request(["other"])
    last: list[Any] = []
    while core.has_unfinished_requests():
        last += [one for one in core.step() if one.finished]
    assert [(one.request_id, one.outputs[0].stop_reason) for one in last] == [
        ("main", "another view of this prompt has ended.")
    ]


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ({"decoder": "contrastive_search", "group": "a", "view": 0}, "it compares candidates before one is chosen"),
        ({"decoder": "dola", "group": "a", "view": 0}, "is the engine's to choose"),
        ({"decoder": "cad:alhpa=1", "group": "a", "view": 0}, "has no option 'alhpa'"),
        ({"decoder": "cad", "group": "a", "view": 2}, "view 2"),
        ({"steer": {"love": "much"}}, "an object of vector names and numbers"),
        ("{", "is no JSON"),
    ],
)
def test_requests_that_make_no_sense_are_errors(llm: LLM, reference: dict[str, Any], told: Any, word: str) -> None:
    params = SamplingParams(temperature=0, extra_args={"truthkit": told})
    with pytest.raises(VLLMValidationError, match=word):
        llm.generate(ids(reference["prompts"][:1]), params, use_tqdm=False)


@pytest.mark.parametrize(
    "wrong", [{"n": 2, "seed": 1, "temperature": 1.0}, {"temperature": 1.0}, {"repetition_penalty": 1.2}]
)
def test_parameters_that_part_views_are_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="view"):
        views("cad", [("a", "b")], SamplingParams(**({"temperature": 0} | wrong)))
