"""Blocks and their parts, in image-text, wrapped and foreign models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    OPTConfig,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

import truthkit as tk
from tests.tiny import padded_batch, tiny
from truthkit.activations.capture import Capture
from truthkit.hf.sites import decoder_blocks, head_features, name_blocks, site_module

_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def llava() -> Any:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_VISION),
        text_config=LlamaConfig(**_TEXT),
        image_token_index=5,
        image_seq_length=4,
    )
    return LlavaForConditionalGeneration(config).eval()


def qwen2_vl() -> Any:
    """Its vision tower has as many blocks as its decoder: the wrong one must not be taken."""
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = Qwen2VLConfig(
        text_config={**_TEXT, "rope_parameters": rope},
        vision_config={
            "depth": 3,
            "embed_dim": 16,
            "hidden_size": 32,
            "num_heads": 2,
            "patch_size": 14,
            "mlp_ratio": 2,
        },
        image_token_id=5,
        video_token_id=6,
        vision_start_token_id=7,
        vision_end_token_id=8,
    )
    return Qwen2VLForConditionalGeneration(config).eval()


def instructblip() -> Any:
    qformer = {
        **_VISION,
        "num_hidden_layers": 2,
        "vocab_size": 128,
        "encoder_hidden_size": 16,
        "cross_attention_frequency": 1,
    }
    text = OPTConfig(**_TEXT, ffn_dim=48, word_embed_proj_dim=32).to_dict()
    config = InstructBlipConfig(
        vision_config=_VISION, qformer_config=qformer, text_config=text, num_query_tokens=4, image_token_index=5
    )
    return InstructBlipForConditionalGeneration(config).eval()


@pytest.mark.parametrize("make", [llava, qwen2_vl, instructblip])
def test_image_text_models(make: Any) -> None:
    model = make()
    blocks = decoder_blocks(model)
    assert len(blocks) == 3
    width = 32
    for site in ("block", "heads", "mlp"):
        assert site_module(blocks[0], site) is not None
    with Capture(model, positions="last") as capture, torch.no_grad():
        model.get_decoder()(input_ids=torch.arange(10, 16)[None])
    assert capture[0].shape == (1, width)


def test_image_positions_of_llava() -> None:
    model = llava()
    ids = torch.tensor([[9, 5, 5, 5, 5, 20, 21], [5, 5, 5, 5, 30, 31, 32]])
    pixels = torch.randn(2, 3, 28, 28)
    with Capture(model, [1], positions="image") as image, Capture(model, [1]) as every, torch.no_grad():
        model(input_ids=ids, pixel_values=pixels)
    assert torch.equal(image[1], every[1][(ids == 5).flatten()])


def test_llava_is_steered_under_generate() -> None:
    """Oracle: no cache; the same hook written by hand over whole forwards."""
    model = llava()
    ids, pixels = torch.tensor([[9, 5, 5, 5, 5, 20, 21]]), torch.randn(1, 3, 28, 28)
    vector = 3 * torch.randn(32)

    def edit(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[:, 7:] += vector
        return changed

    handle = model.model.language_model.layers[1].register_forward_hook(edit)
    text = ids
    with torch.no_grad():
        for _ in range(6):
            logits = model(input_ids=text, pixel_values=pixels, use_cache=False).logits[:, -1]
            text = torch.cat([text, logits.argmax(-1, keepdim=True)], dim=1)
    handle.remove()
    with tk.Steering(model, {1: vector}, positions="generated"):
        output = model.generate(input_ids=ids, pixel_values=pixels, max_new_tokens=6, do_sample=False)
    assert output.tolist() == text.tolist()


def test_through_peft() -> None:
    import peft

    model, batch = tiny("llama"), padded_batch(4, 7)
    with Capture(model, [2]) as plain, torch.no_grad():
        model(**batch)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    with Capture(wrapped, [2]) as adapted, torch.no_grad():
        wrapped(**batch)
    assert adapted[2].shape == plain[2].shape
    assert not torch.allclose(adapted[2], plain[2])


def test_heads_of_a_model() -> None:
    model = tiny("llama")
    assert head_features(model, 1) == slice(12, 24)
    assert head_features(model, -1) == slice(36, 48)
    with pytest.raises(tk.ArgumentError, match="4 attention heads"):
        head_features(model, 4)


def test_unknown_parts_are_listed() -> None:
    block = torch.nn.ModuleDict({"mixer": torch.nn.Linear(2, 2), "norm": torch.nn.LayerNorm(2)})
    with pytest.raises(tk.ModelError, match="mixer, norm"):
        site_module(block, "heads")


def test_blocks_named_by_hand() -> None:
    """A list of another length than the config says is refused, with what was found; then it is named."""
    model = tiny("llama")
    model.config.num_hidden_layers = 5
    with pytest.raises(tk.ModelError, match=r"num_hidden_layers=5.*layers \(4\).*name_blocks"):
        decoder_blocks(model)
    for path, message in (("model.blocks", "no module"), ("model.norm", "expected a list of blocks")):
        with pytest.raises(tk.ModelError, match=message):
            name_blocks(model, path)
    name_blocks(model, "model.layers")
    assert decoder_blocks(model) is model.model.layers


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_quantised_models_are_read_and_steered(quantization: Any, tmp_path: Any) -> None:
    """Oracle: a hook of one's own on the quantised model."""
    pytest.importorskip("bitsandbytes", reason="the extra quantization is not installed")
    from transformers import AutoModelForCausalLM

    from truthkit.models.quantization import quantization_config

    tiny("llama", hidden_size=64, intermediate_size=128, head_dim=16).save_pretrained(tmp_path)
    config = quantization_config(quantization, torch.float32)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=config, dtype=torch.float32).eval()
    ids, vector = torch.arange(2, 10)[None], 3 * torch.randn(64)

    def edit(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
        return output + vector

    with torch.no_grad():
        handle = model.model.layers[1].register_forward_hook(edit)
        expected = model(input_ids=ids).logits
        handle.remove()
        with tk.Steering(model, {1: vector}):
            torch.testing.assert_close(model(input_ids=ids).logits, expected)
        baked = tk.SteeringVector({1: vector}, 4).bake(model, keep_in_memory=True)
        torch.testing.assert_close(model(input_ids=ids).logits, expected, rtol=1e-3, atol=1e-3)
        baked.undo()
