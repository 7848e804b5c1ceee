"""What is put before a model's class, on one of a few matrices instead of an engine's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("vllm")

from truthkit_vllm import exits, scores

FEATURES, VOCABULARY, BLOCKS = 6, 23, 4


def config(decoder: str | None, **more: Any) -> Any:
    told = {} if decoder is None else {"truthkit": {"decoder": decoder}}
    usual = {
        "use_v2_model_runner": False,
        "parallel_config": SimpleNamespace(pipeline_parallel_size=1),
        "speculative_config": None,
        "lora_config": None,
        "additional_config": told,
    }
    return SimpleNamespace(**usual | more)


class Matrices:
    """Blocks, norm and head as a vLLM model has them."""

    def __init__(self, *, vllm_config: Any, prefix: str):
        generator = torch.Generator().manual_seed(0)
        self.config = SimpleNamespace(hidden_size=FEATURES, vocab_size=VOCABULARY, num_hidden_layers=BLOCKS)
        self.blocks = torch.randn(BLOCKS, FEATURES, FEATURES, generator=generator)
        self.head = torch.randn(FEATURES, VOCABULARY, generator=generator)
        self.model = SimpleNamespace(norm=torch.tanh)

    def states(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        found = [inputs]
        for block in self.blocks:
            found.append(found[-1] @ block)
        return found[1:]

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden @ self.head


class Under(exits.Exits, Matrices):
    def run(self, inputs: torch.Tensor) -> torch.Tensor:
        """As an engine would: blocks, with exits where they were asked for, then the scores."""
        states = self.states(inputs)
        taken = [states[number - 1] for number in self.model.aux_hidden_state_layers]
        return self.compute_logits(torch.cat([torch.tanh(states[-1]), *taken], dim=-1))


@pytest.mark.parametrize("norm", [True, False])
def test_exits_in_the_order_given_and_as_often(norm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Under(vllm_config=config(f"sled:layers=2+0+2,steps=3,norm={str(norm).lower()}"))
    inputs = torch.randn(7, FEATURES, generator=torch.Generator().manual_seed(1))
    states = model.states(inputs)
    early = [states[layer].tanh() if norm else states[layer] for layer in (2, 0, 2)]
    wanted = scores.sled(
        states[-1].tanh() @ model.head,
        torch.stack(early) @ model.head,
        evolution_rate=2.0,
        evolution_scale=10,
        steps=3,
        evolution_lower_bound=-100.0,
    )
    torch.testing.assert_close(model.run(inputs), wanted)
    monkeypatch.setattr(exits, "_AT_ONCE", 3 * 4 * VOCABULARY)  # three rows at a time, and one is left
    torch.testing.assert_close(model.run(inputs), wanted)
    monkeypatch.setattr(exits, "_AT_ONCE", 1)
    torch.testing.assert_close(model.run(inputs), wanted)
    assert model.run(inputs[:0]).shape == (0, VOCABULARY)


@pytest.mark.parametrize("decoder", ["dola", "deco"])
def test_the_table_of_formulas(decoder: str) -> None:
    model = Under(vllm_config=config(f"{decoder}:layers=1+2"))
    inputs = torch.randn(3, FEATURES, generator=torch.Generator().manual_seed(1))
    states = model.states(inputs)
    main, early = states[-1].tanh() @ model.head, torch.stack(states[1:3]).tanh() @ model.head
    wanted = {
        "dola": scores.dola(main, early, beta=0.1),
        "deco": scores.deco(main, early, alpha=0.6, top_p=0.9, top_k=20),
    }
    torch.testing.assert_close(model.run(inputs), wanted[decoder])


@pytest.mark.parametrize(
    ("told", "word"),
    [
        (config(None), "decoder is None for a model with exits; expected one of dola, sled, deco"),
        (config("cad"), "decoder is 'cad' for a model with exits"),
        (config("sled:layers=4"), "layers of early exits name 4; the model has 4 decoder blocks"),
        (config("sled", lora_config=object()), "leave enable_lora out"),
        (config("sled", speculative_config=object()), "leave stages and speculation out"),
        (config("sled", parallel_config=SimpleNamespace(pipeline_parallel_size=2)), "leave stages and speculation out"),
        (config("sled", use_v2_model_runner=True), "set VLLM_USE_V2_MODEL_RUNNER=0"),
    ],
)
def test_what_is_refused(told: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Under(vllm_config=told)
