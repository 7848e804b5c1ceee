"""Small random models of every causal language model class of transformers that can be made small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

_SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "lru_width", "dim"), 48),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "decoder_ffn_dim", "encoder_ffn_dim", "block_size"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "num_local_experts", "num_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "num_experts_per_tok"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("head_dim", "d_kv", "v_head_dim", "query_pre_attn_scalar"), 12),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 512),
    **dict.fromkeys(("n_shared_experts", "n_group", "topk_group", "first_k_dense_replace", "n_groups"), 1),
    **dict.fromkeys(("state_size", "mamba_d_state", "time_step_rank", "mamba_dt_rank", "rotary_dim"), 8),
    **dict.fromkeys(("num_heads", "mamba_n_heads", "mamba_num_heads", "hidden_size_per_layer_input"), 8),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "sliding_window"), 16),
    **{"vocab_size": 128, "vocab_size_per_layer_input": 128, "initializer_range": 0.2, "mamba_d_head": 12},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "chunk_size": 8},
}
_MOST = 30e6
"""Parameters of a model that counts as small."""


def classes() -> Iterator[tuple[str, type[PreTrainedConfig], type[PreTrainedModel]]]:
    """Model type, config class and model class of each."""
    for config, found in MODEL_FOR_CAUSAL_LM_MAPPING.items():
        yield config.model_type, config, found[0] if isinstance(found, tuple | list) else found


def small(model_type: str) -> PreTrainedModel:
    """A random model of one type, in eval mode.

    Raises:
        RuntimeError: it does not become small.
        Exception: what its config or class says of the sizes.
    """
    config_class, model_class = next((c, m) for name, c, m in classes() if name == model_type)
    config = _shrunk(config_class())
    config._attn_implementation = "eager"
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in model_class._from_config(config).parameters())
    if parameters > _MOST:
        raise RuntimeError(f"{model_type} still has {parameters / 1e6:.0f} million parameters")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model_class._from_config(config).eval()


def _shrunk(config: Any) -> Any:
    if hasattr(config, "is_decoder"):
        config.is_decoder = True
    for part in {id(one): one for one in (config, config.get_text_config(decoder=True))}.values():
        count = getattr(part, "num_hidden_layers", None)
        for name, value in part.to_dict().items():
            if name in _SIZES and name not in part.attribute_map and type(value) in (int, float):
                setattr(part, name, _SIZES[name])
            elif isinstance(value, list) and len(value) == count and count > 4:
                setattr(part, name, (list(dict.fromkeys(value)) * 4)[:4] if name == "layer_types" else value[:4])
    return config
