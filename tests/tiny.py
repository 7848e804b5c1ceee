"""Tiny random models of many architectures: small enough to recompute every token by an independent oracle.

Weights are seeded and scaled up, so that greedy output varies from step to step and from prompt to prompt. No end token
is set: generation runs to the asked length.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCAB = 128
PAD = 0

# One spelling of the sizes for all architectures that follow Llama's config names.
LLAMA_LIKE: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 512,
}
_GPT_LIKE: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
# These two rescale the embeddings and normalise each block's output: a tied head would only repeat the last token.
_GEMMA_LIKE: dict[str, Any] = {
    **LLAMA_LIKE,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "query_pre_attn_scalar": 12,
    "tie_word_embeddings": False,
}

_CONFIGS: dict[str, dict[str, Any]] = {
    "llama": LLAMA_LIKE,
    "qwen2": LLAMA_LIKE,
    "qwen3": LLAMA_LIKE,
    "gemma": LLAMA_LIKE,
    "gemma2": _GEMMA_LIKE,
    "gemma3_text": _GEMMA_LIKE,
    "mistral": {**LLAMA_LIKE, "sliding_window": 16},
    "mixtral": {**LLAMA_LIKE, "num_local_experts": 4, "num_experts_per_tok": 2},
    "phi": {**LLAMA_LIKE, "num_key_value_heads": 4},
    "phi3": LLAMA_LIKE,
    "gpt2": {"n_embd": 48, "n_layer": 4, "n_head": 4, "n_positions": 512},
    "gpt_neox": {**_GPT_LIKE, "intermediate_size": 64},
    "opt": {**_GPT_LIKE, "ffn_dim": 64, "word_embed_proj_dim": 48},
    "falcon": {**_GPT_LIKE, "new_decoder_architecture": True, "num_kv_heads": 2},
    "mpt": {"d_model": 48, "n_layers": 4, "n_heads": 4, "max_seq_len": 512},
    "bloom": {"hidden_size": 48, "n_layer": 4, "n_head": 4, "tie_word_embeddings": False},
}

FAMILIES: tuple[str, ...] = tuple(_CONFIGS)
"""Every architecture `tiny` knows."""

ALIBI = frozenset({"mpt", "bloom"})
"""Architectures without position ids: attention is biased by distance instead."""


def tiny(
    family: str,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    attn_implementation: str | None = None,
    **config_overrides: Any,
) -> PreTrainedModel:
    """A seeded random causal language model of one architecture, in eval mode on the CPU.

    Vocabulary 128, 4 layers, hidden 48, pad token 0, no end token. `config_overrides` go to the config under the
    architecture's own names.

    Raises:
        KeyError: `family` is not in `FAMILIES`.
    """
    return build(
        family, seed=seed, dtype=dtype, attn_implementation=attn_implementation, **_CONFIGS[family] | config_overrides
    )


def build(
    architecture: str,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    attn_implementation: str | None = None,
    **config_values: Any,
) -> PreTrainedModel:
    """`tiny` for an architecture that it doesn't know: the config's values are all the caller's."""
    values: dict[str, Any] = {"initializer_range": 0.35, "pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": None}
    config = AutoConfig.for_model(architecture, **values | {"vocab_size": VOCAB} | config_values)
    if attn_implementation is not None:
        config._attn_implementation = attn_implementation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()


def padded_batch(*lengths: int, seed: int = 0, vocab: int = VOCAB) -> dict[str, torch.Tensor]:
    """Random prompts of the given lengths, left-padded: `input_ids` and `attention_mask`, both (batch, longest)."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    input_ids = torch.full((len(lengths), width), PAD)
    attention_mask = torch.zeros_like(input_ids)
    for row, length in enumerate(lengths):
        input_ids[row, width - length :] = torch.randint(2, vocab, (length,), generator=generator)
        attention_mask[row, width - length :] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}
