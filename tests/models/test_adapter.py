"""Adapters as people have them: with tokens of their own, with a template, damaged."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.models.folders import byte_tokenizer, text_folder
from tests.tiny import VOCAB, padded_batch, tiny
from truthkit.models.adapter import with_adapter


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    text_folder(path)
    return path


def wrapped(base: Any, **options: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(3)
        return get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, **options))


def logits(model: Any, batch: Any = None) -> torch.Tensor:
    with torch.no_grad():
        return model(**(batch or padded_batch(7, 7))).logits


def longer_tokenizer() -> Any:
    tokenizer = byte_tokenizer(eos_token="</s>")
    tokenizer.add_tokens([f"<new{number}>" for number in range(VOCAB + 3 - len(tokenizer))])
    return tokenizer


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("how", ["whole embeddings", "trained modules", "token indices"])
def test_added_tokens(tmp_path: Path, how: str, tied: bool) -> None:
    """Oracle: the model in memory that was saved, resized by hand."""
    base = tiny("llama", eos_token_id=2, tie_word_embeddings=tied)
    base.save_pretrained(tmp_path / "base")
    byte_tokenizer(eos_token="</s>").save_pretrained(tmp_path / "base")
    tokenizer = longer_tokenizer()
    base.resize_token_embeddings(VOCAB + 3)
    options: dict[str, Any] = {}
    if how == "trained modules":
        options = {"modules_to_save": ["embed_tokens", "lm_head"]}
    elif how == "token indices":
        options = {"trainable_token_indices": list(range(VOCAB, VOCAB + 3))}
    tokenizer.save_pretrained(tmp_path / "lora")
    with warnings.catch_warnings():  # of PEFT's, about tied weights
        warnings.simplefilter("ignore")
        trained = wrapped(base, **options).eval()
        trained.save_pretrained(tmp_path / "lora", save_embedding_layers=how != "token indices")
        model, loaded = tk.load(tmp_path / "base", adapter=tmp_path / "lora")
    text = f"ab<new0>c{tokenizer.decode([VOCAB + 1])}d"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert max(loaded(text)["input_ids"]) >= VOCAB
    assert loaded.padding_side == "left"
    assert loaded.pad_token is not None
    batch = loaded(text, return_tensors="pt", return_token_type_ids=False)
    if how == "token indices" and not tied:  # rows of the head were not trained, so nobody has them
        assert torch.allclose(logits(model, batch)[..., :VOCAB], logits(trained, batch)[..., :VOCAB], atol=1e-5)
    else:
        assert torch.allclose(logits(model, batch), logits(trained, batch), atol=1e-5)


def test_added_tokens_whose_rows_nobody_saved(folder: Path, tmp_path: Path) -> None:
    wrapped(tiny("llama")).save_pretrained(tmp_path)
    longer_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(tk.ModelError, match=rf"has {VOCAB + 3} tokens, the model rows for {VOCAB}, and the adapter"):
        tk.load(folder, adapter=tmp_path)


@pytest.mark.parametrize("tokenizer", [False, True])
def test_an_adapter_with_a_template(folder: Path, tmp_path: Path, tokenizer: bool) -> None:
    wrapped(tiny("llama")).save_pretrained(tmp_path)
    own = byte_tokenizer(eos_token="</s>")
    own.chat_template = "{% for message in messages %}[{{ message['content'] }}]{% endfor %}"
    if tokenizer:
        own.save_pretrained(tmp_path)
    else:
        (tmp_path / "chat_template.jinja").write_text(own.chat_template)
    _, loaded = tk.load(folder, adapter=tmp_path)
    assert loaded.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "[hi]"


def test_a_damaged_tokenizer_beside_an_adapter(folder: Path, tmp_path: Path) -> None:
    wrapped(tiny("llama")).save_pretrained(tmp_path)
    byte_tokenizer(eos_token="</s>").save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(tk.NotAvailableError, match="Delete its tokenizer files in"):
        tk.load(folder, adapter=tmp_path)


def mutate(folder: Path, chance: random.Random) -> None:
    """One change in one file: bytes, an end, a JSON value of another type, or a key that is gone."""
    file = folder / chance.choice(["adapter_config.json", "adapter_model.safetensors"])
    content = bytearray(file.read_bytes())
    way = chance.randrange(4 if file.suffix == ".json" else 2)
    if way == 0:
        for _ in range(chance.choice([1, 3, 20])):
            content[chance.randrange(len(content))] = chance.randrange(256)
    elif way == 1:
        content = content[: chance.randrange(len(content))]
    else:
        settings = json.loads(content)
        key = chance.choice(list(settings))
        if way == 2:
            del settings[key]
        else:
            odd = [None, True, -1, 10**12, 1e400, "", "x", [], ["y"], {}, {"a": {"b": 1}}, [[1]]]
            settings[key] = chance.choice(odd)
        content = bytearray(json.dumps(settings).encode())
    file.write_bytes(bytes(content))


def refusal(model: Any, folder: Path) -> str | None:
    try:
        with_adapter(model, folder)
    except tk.TruthkitError as error:
        return str(error)
    return None


def test_mutated_adapter_folders(folder: Path, tmp_path: Path) -> None:
    """One line each, or an adapter; and the model is clean where it was refused."""
    wrapped(tiny("llama")).save_pretrained(tmp_path)
    whole = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    chance = random.Random(0)
    refusals = 0
    for _ in range(60):
        mutate(tmp_path, chance)
        model = tiny("llama")
        names = [(name, type(module)) for name, module in model.named_modules()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            said = refusal(model, tmp_path)
        if said is not None:
            refusals += 1
            assert "\n" not in said
            assert [(name, type(module)) for name, module in model.named_modules()] == names
        for name, content in whole.items():
            (tmp_path / name).write_bytes(content)
    assert refusals > 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_alpha": "8"}, "has lora_alpha '8'"),
        ({"lora_alpha": float("nan")}, "has lora_alpha nan"),
        ({"alpha_pattern": ["x"]}, "alpha_pattern"),
        ({"r": 10**12}, "says rank 1000000000000, and its weights have 2"),
        ({"peft_type": 3}, "names no peft_type"),
        ({"target_modules": ["k_proj"]}, "does not fit"),
        ({"target_modules": ["q_proj"], "layers_to_transform": [0]}, "does not name the layer of"),
    ],
)
def test_settings_that_cannot_be(folder: Path, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    """Both as the model's adapter and as an amateur's rows, where the latter reads the setting."""
    from truthkit.decoding.engine.adapter import Adapter

    wrapped(tiny("llama")).save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    with pytest.raises(tk.ModelError, match=message):
        tk.load(folder, adapter=tmp_path)
    if "alpha" in message or "peft_type" in message:
        with pytest.raises(tk.ModelError, match=message):
            Adapter(tiny("llama"), str(tmp_path))


def test_junk_as_an_amateurs_weights(tmp_path: Path) -> None:
    from truthkit.decoding.engine.adapter import Adapter

    wrapped(tiny("llama")).save_pretrained(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"junk" * 9)
    with pytest.raises(tk.NotAvailableError, match=rf"is damaged .*: delete {tmp_path}"):
        Adapter(tiny("llama"), str(tmp_path))
