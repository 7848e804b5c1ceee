"""Caches, devices and adapters are looked at when they are used: what changed since is right, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from tests.decoding.oracle import save_adapter
from tests.tiny import padded_batch, tiny

IDS = padded_batch(7)["input_ids"]
SHORT: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return save_adapter(tiny("llama"), tmp_path)


def loaded(folder: str) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(tiny("llama"), folder, adapter_name="lie").eval()


class Remembering(DynamicLayer):
    """Keeps its first keys a second time."""


@pytest.mark.parametrize("amateur", ["prompt", "adapter"])
def test_a_cache_that_keeps_more_is_not_returned(amateur: str, folder: str) -> None:
    model = tiny("llama")
    views = {"amateur_prompt": "lie"} if amateur == "prompt" else {"amateur": folder}
    with tk.ICD(model, ToyTokenizer(), **views) as session:
        right = model.generate(IDS, **SHORT)
        for _ in range(2):
            cache = DynamicCache(config=model.config)
            cache.layers = [Remembering() for _ in cache.layers]
            with pytest.raises(tk.ArgumentError, match="layers of type Remembering, which keep more than keys"):
                model.generate(IDS, **SHORT, cache=cache)
        assert torch.equal(model.generate(IDS, **SHORT), right)
        assert session.decoder.model is model


@pytest.mark.parametrize("way", ["folder", "loaded"])
def test_an_adapter_on_an_offloaded_model(way: str, folder: str, tmp_path: Path) -> None:
    from accelerate import cpu_offload, disk_offload

    make = (lambda: tiny("llama")) if way == "folder" else (lambda: loaded(folder))
    name = folder if way == "folder" else "lie"
    with tk.ICD(plain := make(), amateur=name):
        right = plain.generate(IDS, **SHORT)
    for offload in (
        lambda model: cpu_offload(model, execution_device=torch.device("cpu")),
        lambda model: disk_offload(model, str(tmp_path / "disk"), execution_device=torch.device("cpu")),
    ):
        offload(before := make())
        with tk.ICD(before, amateur=name):
            assert torch.equal(before.generate(input_ids=IDS, **SHORT), right)
        decoder = tk.ICD(after := make(), amateur=name)
        offload(after)
        with decoder:
            assert torch.equal(after.generate(input_ids=IDS, **SHORT), right)


def test_an_adapter_that_changed_since(folder: str) -> None:
    model = loaded(folder)
    decoder = tk.ICD(model, amateur="lie", beta=0.0)
    with decoder:
        right = model.generate(input_ids=IDS, **SHORT)
    model.merge_adapter()
    with pytest.raises(tk.ModelError, match="'lie' is merged into the weights"):
        decoder.__enter__()
    model.unmerge_adapter()
    with decoder:
        model.merge_adapter(adapter_names=["lie"])
        with pytest.raises(tk.ModelError, match="'lie' is merged into the weights"):
            model.generate(input_ids=IDS, **SHORT)
        model.unmerge_adapter()
    for layer in model.modules():
        if isinstance(scaling := getattr(layer, "scaling", None), dict) and "lie" in scaling:
            layer.set_scale("lie", 3.0)
    with decoder:
        changed = model.generate(input_ids=IDS, **SHORT)
    with tk.ICD(model, amateur="lie", beta=0.0):
        assert torch.equal(model.generate(input_ids=IDS, **SHORT), changed)
    assert not torch.equal(changed, right)
    model.delete_adapter("lie")
    with pytest.raises(tk.TruthkitError, match="lie"):
        decoder.__enter__()


def test_a_head_that_was_replaced_since() -> None:
    model = tiny("llama")
    decoder = tk.DoLa(model)
    model.resize_token_embeddings(140)
    with pytest.raises(tk.ModelError, match="the output head of LlamaForCausalLM was replaced since"):
        decoder.__enter__()


def test_an_adapter_for_each_row(folder: str) -> None:
    model, batch = loaded(folder), padded_batch(7, 7)
    with (
        tk.ICD(model, amateur="lie"),
        pytest.raises(tk.ArgumentError, match=r"adapter_names=\['lie', '__base__'\] gives each row"),
    ):
        model.generate(**batch, **SHORT, adapter_names=["lie", "__base__"])
