"""Engines of other models: early exits, adapters, and a baked vector. The oracle is truthkit, token for token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engines import SMALL, arrivals

pytest.importorskip("vllm")

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

from truthkit_vllm.requests import steered, views
from truthkit_vllm.settings import engine

GREEDY = SamplingParams(temperature=0, max_tokens=20)


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each engine in a process of its own, which finds the models by the entry point; one process takes one engine."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")


def answers(llm: LLM, prompts: list[list[int]], params: SamplingParams = GREEDY) -> list[list[int]]:
    outputs = llm.generate([{"prompt_token_ids": row} for row in prompts], params, use_tqdm=False)
    return [list(one.outputs[0].token_ids) for one in outputs]


@pytest.mark.parametrize(
    ("decoder", "name"),
    [
        ("dola", "dola"),
        ("dola:layers=low,beta=0", "dola_low"),
        ("sled", "sled"),
        ("sled:layers=high,evolution_scale=50,steps=1,norm=true", "sled_high"),
        ("deco", "deco"),
        ("deco:layers=all,alpha=1.5,top_k=5,norm=false", "deco_all"),
    ],
)
def test_tokens(reference: dict[str, Any], decoder: str, name: str) -> None:
    """All at once, and in a random order while requests are put off and read again."""
    llm = LLM(
        reference["model"],
        **SMALL | {"disable_log_stats": False},
        **engine(architecture="LlamaForCausalLM", decoder=decoder),
    )
    assert answers(llm, reference["prompts"]) == reference[name]
    crowd: list[tuple[Any, SamplingParams]] = [({"prompt_token_ids": row}, GREEDY) for row in reference["prompts"]]
    found = [list(one.outputs[0].token_ids) for one in arrivals(llm, crowd, 0, preempt=0.2)]
    assert found == reference[name]
    assert sum(one.value for one in llm.get_metrics() if one.name == "vllm:num_preemptions") > 0


@pytest.mark.parametrize(("name", "architecture"), [("qwen2", "Qwen2ForCausalLM"), ("qwen3", "Qwen3ForCausalLM")])
def test_other_architectures_steered_under_dola(
    folder: Path, reference: dict[str, Any], name: str, architecture: str
) -> None:
    told = engine(architecture=architecture, decoder="dola", steer=f"{folder / f'{name}.safetensors'}:layers=2+3")
    llm = LLM(str(folder / name), **SMALL, skip_tokenizer_init=True, **told)
    wanted = reference["tiny"][name]
    raw = SamplingParams(temperature=0, max_tokens=20, detokenize=False)
    assert answers(llm, wanted["prompts"], raw) == wanted["dola"]
    assert answers(llm, wanted["prompts"], steered(raw, {name: 1.5})) == wanted["both"]


def test_a_baked_model_is_a_plain_one(folder: Path, reference: dict[str, Any]) -> None:
    llm = LLM(str(folder / "baked"), **SMALL, enforce_eager=True)
    assert answers(llm, reference["prompts"]) == reference["plus"]


@pytest.mark.parametrize(
    ("name", "architecture", "decoder"), [("qwen2", "Qwen2ForCausalLM", "sled"), ("qwen3", "Qwen3ForCausalLM", "deco")]
)
def test_other_architectures(
    folder: Path, reference: dict[str, Any], name: str, architecture: str, decoder: str
) -> None:
    told = engine(architecture=architecture, decoder=decoder)
    llm = LLM(str(folder / name), **SMALL, skip_tokenizer_init=True, **told)
    wanted = reference["tiny"][name]
    raw = SamplingParams(temperature=0, max_tokens=20, detokenize=False)
    assert answers(llm, wanted["prompts"], raw) == wanted[decoder]


def test_an_adapter_as_the_amateur(reference: dict[str, Any]) -> None:
    """Beside a prompt-only one and requests for themselves, which have no adapter: none reads another's."""
    told = {"additional_config": {"truthkit": {"patience": 2.0}}}
    llm = LLM(reference["model"], **SMALL, **told, max_lora_rank=8, **engine(views=True, adapters=1))
    amateur = LoRARequest("amateur", 1, reference["adapter"])
    rows, others = ([{"prompt_token_ids": row} for row in reference[key]] for key in ("prompts", "amateur"))
    prompts, params = views("icd", zip(rows, rows, strict=True), GREEDY)
    more, more_params = views("icd:amateur=prompt", zip(rows, others, strict=True), GREEDY)
    adapters = [None, amateur] * len(rows) + [None] * 3 * len(rows)
    outputs = llm.generate(
        [*prompts, *more, *rows],
        [*params, *more_params, *[GREEDY] * len(rows)],
        lora_request=adapters,
        use_tqdm=False,
    )
    found = [list(one.outputs[0].token_ids) for one in outputs]
    assert found[0:32:2] == reference["icd_adapter"]
    assert found[32:64:2] == reference["icd"]
    assert found[64:] == reference["greedy"]

    refused = [("cad", amateur, "different adapters"), ("icd:amateur=prompt", amateur, "different adapters")]
    refused += [("icd", LoRARequest("other", 2, reference["adapter"]), "room for one adapter less")]
    for decoder, adapter, word in refused:
        pair = views(decoder, [(rows[0], rows[0])], GREEDY)
        outputs = llm.generate(*pair, lora_request=[None, adapter], use_tqdm=False)
        reasons = [one.outputs[0].stop_reason for one in outputs]
        assert any(word in str(reason) for reason in reasons), reasons
