"""Engines of other models: DoLa, and a baked vector. The oracle is truthkit, token for token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engines import SMALL

pytest.importorskip("vllm")

from vllm import LLM, SamplingParams

from truthkit_vllm.requests import steered
from truthkit_vllm.settings import engine

GREEDY = SamplingParams(temperature=0, max_tokens=20)


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each engine in a process of its own, which finds the models by the entry point; one process takes one engine."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")


def answers(llm: LLM, prompts: list[list[int]], params: SamplingParams = GREEDY) -> list[list[int]]:
    outputs = llm.generate([{"prompt_token_ids": row} for row in prompts], params, use_tqdm=False)
    return [list(one.outputs[0].token_ids) for one in outputs]


@pytest.mark.parametrize(("decoder", "name"), [("dola", "dola"), ("dola:layers=low,beta=0", "dola_low")])
def test_tokens(reference: dict[str, Any], decoder: str, name: str) -> None:
    llm = LLM(reference["model"], **SMALL, **engine(architecture="LlamaForCausalLM", decoder=decoder))
    assert answers(llm, reference["prompts"]) == reference[name]


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
