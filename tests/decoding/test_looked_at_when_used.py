"""Caches, devices and adapters are looked at when they are used: what changed since is right, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import DynamicLayer

import truthkit as tk
from tests.decoding.cases import ToyTokenizer
from tests.decoding.oracle import save_adapter
from tests.tiny import build, padded_batch, tiny

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


def test_a_cache_that_was_cropped_to_nothing() -> None:
    """Under a view with its own prompt: of one row before, of two afterwards."""
    model = tiny("llama")
    for make in (
        lambda: DynamicCache(config=model.config),
        lambda: StaticCache(config=model.config, max_cache_len=40),
        lambda: tk.GrowingCache(config=model.config),
    ):
        with tk.ICD(model, ToyTokenizer(), amateur_prompt="lie"):
            right, cache = model.generate(IDS, **SHORT), make()
            for _ in range(2):
                assert torch.equal(model.generate(IDS, **SHORT, cache=cache), right)
                cache.crop(-int(cache.get_seq_length()))


def test_embeddings_beside_tokens() -> None:
    """What another prompt is made of are tokens; another model reads those."""
    model = tiny("llama")
    embeddings = model.get_input_embeddings()(IDS)
    with (
        tk.ICD(model, ToyTokenizer(), amateur_prompt="lie"),
        pytest.raises(tk.ArgumentError, match="pass input_ids alone"),
    ):
        model.generate(inputs_embeds=embeddings, input_ids=IDS, **SHORT)
    with tk.ICD(model, ToyTokenizer(), amateur=tiny("llama", seed=1), amateur_prompt="lie"):
        right = model.generate(IDS, **SHORT)
        assert torch.equal(model.generate(inputs_embeds=embeddings, input_ids=IDS, **SHORT), right)


def test_models_that_say_no_length_or_know_no_cache() -> None:
    xlnet = build("xlnet", d_model=48, n_layer=4, n_head=4, d_inner=64)
    plain = xlnet.generate(IDS, **SHORT)
    with tk.APC(xlnet):
        assert torch.equal(xlnet.generate(IDS, **SHORT), plain)
    with pytest.raises(tk.ModelError, match="takes no position_ids"):
        tk.ICD(xlnet, ToyTokenizer(), amateur_prompt="lie")
    gpt = build("openai-gpt", n_embd=48, n_layer=4, n_head=4, n_positions=128)
    with pytest.raises(tk.ModelError, match="OpenAIGPTLMHeadModel keeps its state outside of a transf"):
        gpt.generate(IDS, custom_generate=tk.contrastive_search, max_new_tokens=4)  # type: ignore[operator]


def test_an_amateur_with_a_padded_vocabulary() -> None:
    model, amateur = tiny("llama"), tiny("llama", seed=1, vocab_size=136)
    with pytest.raises(tk.ModelError, match=r"padded with unused rows, .* amateur\.resize_token_embeddings\(128\)"):
        tk.ICD(model, amateur=amateur)
    amateur.resize_token_embeddings(128)
    with tk.ICD(model, amateur=amateur):
        model.generate(IDS, **SHORT)
