"""DoLa as a model; the oracle is truthkit's on transformers, token for token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engines import SMALL

pytest.importorskip("vllm")

from truthkit_vllm.settings import engine  # noqa: E402
from vllm import LLM, SamplingParams  # noqa: E402

GREEDY = SamplingParams(temperature=0, max_tokens=20)


@pytest.mark.parametrize(("decoder", "name"), [("dola", "dola"), ("dola:layers=low,beta=0", "dola_low")])
def test_tokens(reference: dict[str, Any], decoder: str, name: str) -> None:
    llm = LLM(reference["model"], **SMALL, **engine(architecture="LlamaForCausalLM", decoder=decoder))
    prompts = [{"prompt_token_ids": row} for row in reference["prompts"]]
    found = [list(one.outputs[0].token_ids) for one in llm.generate(prompts, GREEDY, use_tqdm=False)]
    assert found == reference[name]


def test_a_baked_model_is_a_plain_one(folder: Path, reference: dict[str, Any]) -> None:
    llm = LLM(str(folder / "baked"), **SMALL, enforce_eager=True)
    prompts = [{"prompt_token_ids": row} for row in reference["prompts"]]
    found = [list(one.outputs[0].token_ids) for one in llm.generate(prompts, GREEDY, use_tqdm=False)]
    assert found == reference["plus"]
