"""Models of the sizes that people serve, with random weights made on the device: what a step costs does not depend on
them, and nothing is downloaded.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import peft
import torch
from images import llava_processor
from transformers import CLIPVisionConfig, LlamaConfig, LlamaForCausalLM, LlavaConfig, LlavaForConditionalGeneration

import truthkit as tk

LONGEST = 33_000
LLAMA_3_8B: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": LONGEST,
}
LLAMA_2_7B: dict[str, Any] = {
    **LLAMA_3_8B,
    "intermediate_size": 11008,
    "num_key_value_heads": 32,
    "vocab_size": 49280,  # the tokenizer is the bundled model's
}
CLIP_L: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
TINY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 49280,
    "max_position_embeddings": LONGEST,
}
TINY_EYE: dict[str, Any] = {
    **CLIP_L,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "image_size": 28,
}
TARGETS = {
    "q and v": ["q_proj", "v_proj"],
    "all linear layers": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}


def text_model(device: str, dtype: torch.dtype, *, tiny: bool) -> tuple[Any, Any]:
    """A decoder of Llama-3-8B's size and the bundled tokenizer."""
    _, tokenizer = tk.load()
    return _made(LlamaForCausalLM, LlamaConfig(**(TINY if tiny else LLAMA_3_8B)), device, dtype), tokenizer


def image_model(device: str, dtype: torch.dtype, *, tiny: bool) -> tuple[Any, Any]:
    """A model of LLaVA-1.5-7B's size and its processor."""
    _, tokenizer = tk.load()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    eye = TINY_EYE if tiny else CLIP_L
    config = LlavaConfig(
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_config=CLIPVisionConfig(**eye),
        text_config=LlamaConfig(**(TINY if tiny else LLAMA_2_7B)),
    )
    model = _made(LlavaForConditionalGeneration, config, device, dtype)
    return model, llava_processor(tokenizer, eye["image_size"])


def _made(kind: Any, config: Any, device: str, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    with torch.device(device):
        model = kind._from_config(config, dtype=dtype).eval()
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = None
    return model


def random_amateurs(model: Any) -> tuple[dict[str, str], tempfile.TemporaryDirectory[str]]:
    """Folders of rank-8 LoRA adapters with random weights, by what they adapt, and the folder that holds them."""
    held = tempfile.TemporaryDirectory()
    for name, modules in TARGETS.items():
        torch.manual_seed(0)
        adapted = peft.get_peft_model(model, _lora(modules))
        adapted.save_pretrained(Path(held.name) / name)
        adapted.unload()
    return {name: str(Path(held.name) / name) for name in TARGETS}, held


def with_amateur(model: Any) -> Any:
    """The model wrapped by PEFT with such an adapter, to switch it on and off the plain way; `unload()` it."""
    return peft.get_peft_model(model, _lora(TARGETS["q and v"]))


def _lora(modules: list[str]) -> peft.LoraConfig:
    return peft.LoraConfig(r=8, lora_alpha=16, target_modules=modules, init_lora_weights=False)
