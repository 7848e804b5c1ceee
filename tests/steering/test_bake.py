"""A baked model is the steered one, its checkpoint is an ordinary one, and undoing gives back every bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import truthkit as tk
from tests.tiny import FAMILIES, padded_batch, tiny
from truthkit.steering.vector import SteeringVector

_HAS_BIASES = ("phi", "gpt2", "gpt_neox", "opt", "bloom")
_POST_NORM = ("gemma2", "gemma3_text")
IDS = torch.arange(2, 20).view(2, 9)


def vector(site: str = "block") -> SteeringVector:
    generator = torch.Generator().manual_seed(3)
    return SteeringVector({layer: 2 * torch.randn(48, generator=generator) for layer in (1, 2)}, 4, site)


def greedy(model: Any) -> list[list[int]]:
    return model.generate(**padded_batch(5, 9), max_new_tokens=8, do_sample=False).tolist()


def bits(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_same_tokens_as_steering_and_exactly_undone(family: str) -> None:
    model = tiny(family)
    for site in ("block", "mlp", "heads"):
        if not (family in _POST_NORM and site == "mlp"):  # its MLP output itself takes a bias
            check_baked(model, family, site)


def check_baked(model: Any, family: str, site: str) -> None:
    before, config = bits(model), model.config.to_dict()
    if site != "heads" and (family in _POST_NORM or family == "mixtral"):
        expected = "before it joins" if family in _POST_NORM else "cannot|no single|joins"
        with pytest.raises(tk.ModelError, match=expected):
            vector(site).bake(model, layers="all", keep_in_memory=True)
    else:
        with vector(site).steer(model, layers="all", strength=0.8), torch.no_grad():
            steered = model(input_ids=IDS).logits
            tokens = greedy(model)
        baked = vector(site).bake(model, layers="all", strength=0.8, keep_in_memory=True)
        with torch.no_grad():
            torch.testing.assert_close(model(input_ids=IDS).logits, steered, rtol=1e-3, atol=1e-3)
        assert greedy(model) == tokens
        baked.undo()
        baked.undo()
    after = bits(model)
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert model.config.to_dict() == config


@pytest.mark.parametrize("family", ["llama", *_HAS_BIASES])
def test_the_checkpoint_is_an_ordinary_one(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    with vector().bake(model, layers="all"):
        tokens = greedy(model)
        model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert greedy(again) == tokens
    assert greedy(model) != tokens


def test_baked_heads_survive_a_checkpoint(tmp_path: Path) -> None:
    model = tiny("llama")
    with vector("heads").bake(model, layers="all"):
        tokens = greedy(model)
        model.save_pretrained(tmp_path)
    assert greedy(AutoModelForCausalLM.from_pretrained(tmp_path).eval()) == tokens


def test_an_architecture_without_biases_says_so() -> None:
    with pytest.raises(tk.ModelError, match="keep_in_memory=True"):
        vector().bake(tiny("mistral"), layers="all")


def test_the_same_after_an_error() -> None:
    model = tiny("gemma2")
    before = bits(model)
    with pytest.raises(tk.ModelError, match="steer it instead"):
        vector().bake(model, layers="all", keep_in_memory=True)
    assert set(bits(model)) == set(before)
