"""`tk.load` from folders and files: what comes back is the saved model, and what cannot work is explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import truthkit as tk
from tests.models.folders import gguf_file, llava_folder, text_folder
from tests.tiny import padded_batch, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with a tokenizer that has an end token and no pad token."""
    path = tmp_path_factory.mktemp("llama")
    text_folder(path)
    return path


@pytest.fixture(scope="module")
def lora(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter for that Llama, both of its matrices random."""
    from peft import LoraConfig, get_peft_model

    path = tmp_path_factory.mktemp("lora")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        wrapped = get_peft_model(
            tiny("llama"), LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], init_lora_weights=False)
        )
    wrapped.save_pretrained(path)
    return path


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**padded_batch(7, 7)).logits


@pytest.mark.parametrize("as_path", [False, True], ids=["str", "Path"])
def test_folder(folder: Path, as_path: bool) -> None:
    model, tokenizer = tk.load(folder if as_path else str(folder))
    assert torch.equal(logits(model), logits(tiny("llama")))
    assert not model.training
    assert tokenizer.padding_side == "left"
    assert tokenizer("ab", return_tensors="pt")["input_ids"].shape == (1, 2)


def test_missing_pad_token_becomes_the_end_token(folder: Path) -> None:
    model, tokenizer = tk.load(folder)
    assert tokenizer.pad_token == "</s>"
    assert tokenizer(["a", "abc"], padding=True)["attention_mask"] == [[0, 0, 1], [1, 1, 1]]
    assert model.generation_config.pad_token_id is not None


def test_own_pad_token_is_kept(tmp_path: Path) -> None:
    text_folder(tmp_path, eos_token="</s>", pad_token="<pad>")
    assert tk.load(tmp_path)[1].pad_token == "<pad>"


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16, "float64"])
def test_dtype(folder: Path, dtype: Any) -> None:
    expected = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert tk.load(folder, dtype=dtype)[0].dtype == expected


@pytest.mark.parametrize("dtype", [None, "auto"])
def test_without_dtype_the_checkpoint_decides(tmp_path: Path, dtype: str | None) -> None:
    text_folder(tmp_path)
    tiny("llama", dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert tk.load(tmp_path, dtype=dtype)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}, "cpu"])
def test_device_map(folder: Path, device_map: Any) -> None:
    model, _ = tk.load(folder, device_map=device_map)
    assert torch.allclose(logits(model).cpu(), logits(tiny("llama")), atol=1e-4)


def test_device_map_is_obeyed(folder: Path) -> None:
    model, _ = tk.load(folder, device_map="meta")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_gguf_file(tmp_path: Path) -> None:
    """Oracle: the model whose weights the test wrote into the file by the format's own rules."""
    pytest.importorskip("gguf")
    saved = tiny("llama")
    gguf_file(tmp_path / "model.gguf", saved)
    model, tokenizer = tk.load(tmp_path / "model.gguf")
    assert model.dtype == torch.float32
    assert torch.allclose(logits(model), logits(saved), atol=1e-4)
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token is not None
    assert tk.load(tmp_path / "model.gguf", dtype="bfloat16")[0].dtype == torch.bfloat16


def test_gguf_is_not_quantized_again(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    with pytest.raises(tk.ArgumentError, match="quantization='4bit' cannot be combined with the GGUF file"):
        tk.load(tmp_path / "model.gguf", quantization="4bit")


def test_damaged_gguf_is_explained(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "model.gguf").write_bytes(b"not GGUF at all" * 9)
    with pytest.raises(tk.TruthkitError, match=r"model\.gguf"):
        tk.load(tmp_path / "model.gguf")


def test_image_text_folder(tmp_path: Path) -> None:
    saved = llava_folder(tmp_path)
    model, processor = tk.load(tmp_path)
    assert type(model) is type(saved)
    assert not model.training
    assert processor.tokenizer.padding_side == "left"
    image = Image.fromarray(np.full((28, 28, 3), 90, dtype=np.uint8))
    inputs = processor(text=["<image>ab", "<image>abcd"], images=[image, image], padding=True, return_tensors="pt")
    assert inputs["attention_mask"].sum(1).tolist() == [6, 8]
    output = model.generate(**inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert output.shape == (2, 12)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, saved(**inputs).logits)


def test_processor_that_needs_torchvision_is_explained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object, **kwargs: object) -> None:
        raise ImportError("Qwen2VLVideoProcessor requires the Torchvision library but it was not found.\nSee ...")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", missing)
    with pytest.raises(tk.MissingExtraError, match="needs torchvision"):
        tk.load(folder)


@pytest.mark.parametrize(("bits", "layer"), [("4bit", "Linear4bit"), ("8bit", "Linear8bitLt")])
def test_quantized_model_generates(bits: Any, layer: str, smollm2: Any) -> None:
    pytest.importorskip("bitsandbytes")
    model, tokenizer = tk.load(quantization=bits)
    assert type(model.model.layers[0].mlp.up_proj).__name__ == layer
    assert model.get_memory_footprint() < 0.5 * smollm2[0].get_memory_footprint()
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert tokenizer.decode(output[0, inputs["input_ids"].shape[1] :]).startswith("The capital of France is Paris")


def test_4bit_computes_in_the_dtype_of_the_model(folder: Path) -> None:
    pytest.importorskip("bitsandbytes")
    for dtype, expected in ((None, torch.float32), ("bfloat16", torch.bfloat16)):
        model, _ = tk.load(folder, quantization="4bit", dtype=dtype)
        assert model.config.quantization_config.bnb_4bit_compute_dtype == expected
        assert model.model.layers[0].mlp.up_proj.compute_dtype == expected


def test_8bit_says_once_that_it_casts(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("bitsandbytes")
    model, _ = tk.load(folder, quantization="8bit")
    caplog.clear()
    for _ in range(2):
        logits(model)
    assert sum("inputs will be cast" in record.getMessage() for record in caplog.records) <= 1


def test_adapter_is_applied(folder: Path, lora: Path) -> None:
    """Oracle: W + (alpha / r) B A, added to the plain model's weights by hand."""
    from safetensors.torch import load_file

    expected = tiny("llama")
    matrices = load_file(lora / "adapter_model.safetensors")
    for index, block in enumerate(expected.model.layers):
        prefix = f"base_model.model.model.layers.{index}.self_attn.q_proj.lora_"
        delta = 2.0 * matrices[f"{prefix}B.weight"] @ matrices[f"{prefix}A.weight"]
        block.self_attn.q_proj.weight.data += delta
    model, _ = tk.load(folder, adapter=lora)
    assert type(model).__name__.startswith("Peft")
    assert not model.training
    assert not any(parameter.requires_grad for name, parameter in model.named_parameters() if "lora_" in name)
    assert torch.allclose(logits(model), logits(expected), atol=1e-3)
    assert not torch.allclose(logits(model), logits(tiny("llama")), atol=1e-1)


def test_adapter_of_another_model_is_refused(tmp_path: Path, lora: Path) -> None:
    text_folder(tmp_path / "gpt2", "gpt2")
    with pytest.raises(tk.ModelError, match="does not fit GPT2LMHeadModel"):
        tk.load(tmp_path / "gpt2", adapter=lora)


def test_adapter_of_another_width_is_refused(tmp_path: Path, lora: Path) -> None:
    text_folder(tmp_path)
    tiny("llama", hidden_size=32).save_pretrained(tmp_path)
    with pytest.raises(tk.ModelError, match="does not fit LlamaForCausalLM"):
        tk.load(tmp_path, adapter=lora)


@pytest.mark.parametrize("adapter", ["nowhere/adapter", "./nowhere", "/nowhere/at/all"])
def test_missing_adapter(folder: Path, adapter: str) -> None:
    with pytest.raises(tk.NotAvailableError, match=f"adapter='{adapter}' is neither a folder here nor"):
        tk.load(folder, adapter=adapter)


def test_folder_without_an_adapter(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(tk.NotAvailableError, match=r"without adapter_config\.json"):
        tk.load(folder, adapter=tmp_path)


@pytest.mark.parametrize("name", ["org/no-such-model", "no-such-model"])
def test_unknown_hub_name(name: str) -> None:
    with pytest.raises(tk.NotAvailableError) as caught:
        tk.load(name)
    for hint in (name, "smollm2", "tk.load()", "HF_HUB_OFFLINE=1"):
        assert hint in str(caught.value)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", Path("nowhere"), "nowhere.gguf", "~/nowhere-at-all"])
def test_missing_path(name: Any) -> None:
    with pytest.raises(tk.NotAvailableError, match="there is nothing at /"):
        tk.load(name)


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(tk.NotAvailableError, match=r"without config\.json"):
        tk.load(tmp_path)


def test_adapter_given_as_the_model(lora: Path) -> None:
    with pytest.raises(tk.ArgumentError, match="pass it as adapter="):
        tk.load(lora)


def test_folder_without_weights(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(tk.NotAvailableError, match="complete model folder"):
        tk.load(tmp_path)


def test_damaged_weights(tmp_path: Path) -> None:
    text_folder(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(tk.NotAvailableError, match="damaged"):
        tk.load(tmp_path)


def test_a_model_that_does_not_generate_text(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    text_folder(tmp_path / "text")
    for file in (tmp_path / "text").glob("tokenizer*"):
        file.rename(tmp_path / file.name)
    with pytest.raises(tk.ModelError, match="text or image-text model"):
        tk.load(tmp_path)


def test_code_of_a_repository_does_not_run(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(tk.ArgumentError, match="trust_remote_code=True"):
        tk.load(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantization": "3bit"}, "quantization='3bit' is not known; use '4bit', '8bit' or None"),
        ({"dtype": "float99"}, "dtype='float99' is not a floating-point torch dtype"),
        ({"dtype": "int8"}, "quantization='4bit' or '8bit' for fewer bits"),
        ({"dtype": torch.int8}, "dtype=torch.int8 is not"),
        ({"dtype": "nn"}, "dtype='nn' is not"),
    ],
)
def test_bad_argument(folder: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        tk.load(folder, **arguments)


def test_missing_bitsandbytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truthkit.models.quantization.find_spec", lambda name: None)
    with pytest.raises(tk.MissingExtraError, match=r"pip install 'truthkit\[quantization\]'"):
        tk.load(folder, quantization="8bit")


def test_loading_from_disk_is_silent(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    logging.enable_progress_bar()
    tk.load(folder)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert logging.is_progress_bar_enabled()
