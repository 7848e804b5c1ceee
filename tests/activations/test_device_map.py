"""Models whose weights lie elsewhere than where they run. Oracle: the same model in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from tests.steering.test_extract import toy_pairs
from tests.tiny import padded_batch, tiny
from truthkit.activations.capture import Capture


def split(model: Any, folder: Path) -> Any:
    """Two blocks in memory, the rest on disk."""
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    places |= {f"model.layers.{layer}": "cpu" if layer < 2 else "disk" for layer in range(4)}
    return dispatch_model(model, places, main_device="cpu", offload_dir=folder)


PLACES = {
    "one map": lambda model, _folder: dispatch_model(model, {"": "cpu"}, force_hooks=True),
    "cpu and disk": split,
    "all on disk": lambda model, folder: disk_offload(model, folder, execution_device=torch.device("cpu")),
    "all offloaded": lambda model, _folder: cpu_offload(model, execution_device=torch.device("cpu")),
}


@pytest.mark.parametrize("place", sorted(PLACES))
@pytest.mark.parametrize("site", ["block", "heads", "mlp"])
def test_read_and_steered_as_in_one_place(place: str, site: str, tmp_path: Path) -> None:
    plain, batch = tiny("llama"), padded_batch(5, 9)
    mapped = PLACES[place](tiny("llama"), tmp_path)
    vectors = {1: 3 * torch.randn(48), 3: 3 * torch.randn(48)}
    found = []
    for model in (plain, mapped):
        with tk.Steering(model, vectors, site=site, positions="generated"), Capture(model, site=site) as capture:
            tokens = model.generate(**batch, max_new_tokens=6, do_sample=False)
        states = torch.stack([capture[layer] for layer in range(4)])
        vector = tk.extract(model, ToyTokenizer(), toy_pairs(12), layers=[0, 2], site=site, held_out=0)
        again = model.generate(**batch, max_new_tokens=6, do_sample=False)
        found.append((tokens, states, vector[0], vector[2], again))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_weights_that_are_elsewhere_are_not_baked(tmp_path: Path) -> None:
    model = split(tiny("llama"), tmp_path)
    vector = tk.SteeringVector({3: torch.randn(48)}, 4)
    with pytest.raises(tk.ModelError, match="offloaded"):
        vector.bake(model)
    assert not any(module._forward_hooks for module in model.modules())
