"""Tiny checkpoints on disk, as the hub would serve them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.tiny import VOCAB, tiny

SPECIAL = ["<pad>", "<s>", "</s>", "<image>"]


def byte_tokenizer(**special_tokens: str) -> PreTrainedTokenizerFast:
    """One token for each printable ASCII character, `SPECIAL` first; 128 tokens at most."""
    characters = [chr(code) for code in range(32, 127)]
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *characters])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=" "))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("[ -~]"), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, additional_special_tokens=["<image>"], **special_tokens)


def text_folder(folder: Path, family: str = "llama", **special_tokens: str) -> PreTrainedModel:
    """Save a tiny model and its tokenizer to `folder`, and return the model."""
    model = tiny(family, eos_token_id=2)
    model.save_pretrained(folder)
    byte_tokenizer(**(special_tokens or {"eos_token": "</s>"})).save_pretrained(folder)
    return model


def llava_folder(folder: Path) -> PreTrainedModel:
    """Save a tiny LLaVA with its processor to `folder`, and return the model."""
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    vision: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision, num_attention_heads=2, image_size=28, patch_size=14),
        text_config=tiny("llama").config,
        image_token_index=3,
        pad_token_id=0,
    )
    model = LlavaForConditionalGeneration(config).eval()
    model.save_pretrained(folder)
    size = {"height": 28, "width": 28}
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=size, crop_size=size),
        tokenizer=byte_tokenizer(eos_token="</s>", pad_token="<pad>"),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
    ).save_pretrained(folder)
    assert len(SPECIAL) + 95 <= VOCAB
    return model


def gguf_file(file: Path, model: PreTrainedModel) -> None:
    """Write a tiny Llama as a float32 GGUF file, by the format's own rules.

    Rotary pairs of channels lie side by side there, and in two halves in transformers.
    """
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCAB)
    tokens = [*SPECIAL, *(chr(code) for code in range(33, 127)), "ab"]
    tokens += [f"<{index}>" for index in range(VOCAB - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (VOCAB - len(SPECIAL)))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        name = name.removesuffix(".weight")
        block, _, inner = name.removeprefix("model.layers.").partition(".")
        own = names[inner if block.isdigit() else name]
        if own in heads:
            weight = weight.reshape(heads[own], 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
        prefix = f"blk.{block}." if block.isdigit() else ""
        writer.add_tensor(f"{prefix}{own}.weight", weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
