"""More architectures than tests/tiny.py knows: right by the oracle of test_decoders.py, or refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import MllamaConfig, MllamaForConditionalGeneration

import truthkit as tk
from tests.decoding.cases import LIE, ToyTokenizer
from tests.decoding.oracle import Look, Oracle, dola, icd, save_adapter, with_adapter
from tests.decoding.test_decoders import decode
from tests.tiny import LLAMA_LIKE, build, padded_batch
from truthkit.hf.padding import neutral_to_padding

MOE = {
    **LLAMA_LIKE,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
SLIDING = {**LLAMA_LIKE, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"] * 2}
HYBRID = {
    **MOE,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 12,
    "linear_value_head_dim": 12,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}
MAMBA = {"hidden_size": 48, "num_hidden_layers": 4, "state_size": 8}
CONFIGS: dict[str, dict[str, Any]] = {
    "cohere2": SLIDING,
    "exaone4": SLIDING,
    "glm": LLAMA_LIKE,
    "gpt_oss": {**LLAMA_LIKE, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16},
    "granite": {**LLAMA_LIKE, "logits_scaling": 3.0},
    "llama4_text": {**LLAMA_LIKE, "intermediate_size_mlp": 64, "num_local_experts": 2},
    "mamba": MAMBA,
    "mamba2": {**MAMBA, "num_heads": 8, "head_dim": 12, "n_groups": 2, "chunk_size": 8},
    "olmo2": LLAMA_LIKE,
    "qwen2_moe": MOE,
    "qwen3_next": HYBRID,
    "xglm": {"d_model": 48, "num_layers": 4, "attention_heads": 4, "ffn_dim": 64},
    "bart": {
        "d_model": 48,
        "decoder_layers": 4,
        "decoder_ffn_dim": 64,
        "is_decoder": True,
        "is_encoder_decoder": False,
    },
    "recurrent_gemma": {
        **LLAMA_LIKE,
        "lru_width": 48,
        "attention_window_size": 16,
        "block_types": ["recurrent", "recurrent", "attention"],
    },
    "rwkv": {"hidden_size": 48, "num_hidden_layers": 4, "context_length": 512},
}


def make(architecture: str) -> Any:
    return build(architecture, **CONFIGS[architecture])


def check(decoder: Any, oracle: Oracle) -> None:
    inputs = padded_batch(9, 21, 14, 5)
    want = [decode(oracle, inputs, num_beams=beams).sequences.tolist() for beams in (1, 3)]
    with decoder:
        assert decode(decoder.model, inputs).sequences.tolist() == want[0]
        assert decode(decoder.model, inputs, cache_implementation="static").sequences.tolist() == want[0]
        assert decode(decoder.model, inputs, num_beams=3).sequences.tolist() == want[1]


@pytest.mark.parametrize(
    "architecture", [name for name in CONFIGS if name not in ("bart", "mamba", "recurrent_gemma", "rwkv")]
)
def test_prompt_view(architecture: str) -> None:
    model = make(architecture)
    look = Look(model, lambda prompt: [*map(ord, f"{LIE}\n\n"), *prompt])
    check(tk.ICD(model, ToyTokenizer(), amateur_prompt=LIE), Oracle(model, [look], icd()))


@pytest.mark.parametrize(
    "architecture", ["cohere2", "exaone4", "glm", "gpt_oss", "granite", "olmo2", "qwen2_moe", "qwen3_next"]
)
def test_early_exit(architecture: str) -> None:
    model = make(architecture)
    check(tk.DoLa(model, layers=[1]), Oracle(model, formula=dola(), layers=[1]))


@pytest.mark.parametrize(
    ("architecture", "targets"),
    [
        ("cohere2", "all-linear"),
        ("mamba", ["in_proj"]),
        ("mamba2", ["in_proj"]),
        ("qwen2_moe", ["q_proj", "shared_expert.down_proj", "shared_expert_gate"]),
        ("qwen3_next", ["q_proj", "in_proj_qkvz"]),
    ],
)
def test_adapter(architecture: str, targets: Any, tmp_path: Any) -> None:
    folder, model = save_adapter(make(architecture), tmp_path, target_modules=targets), make(architecture)
    check(tk.ICD(model, amateur=folder), Oracle(model, [Look(with_adapter(make(architecture), folder))], icd()))


class TestRefused:
    @pytest.mark.parametrize("architecture", ["bart", "mamba", "rwkv"])
    def test_prompts_that_cannot_be_lined_up(self, architecture: str) -> None:
        """These models place a token by its index, or let padding into their state."""
        with pytest.raises(tk.ModelError, match="takes no position_ids, so views whose prompts differ in length"):
            tk.ICD(make(architecture), ToyTokenizer(), amateur_prompt=LIE)

    def test_state_outside_of_the_cache(self, tmp_path: Any) -> None:
        model, folder = make("rwkv"), save_adapter(make("rwkv"), tmp_path, target_modules=["key"])
        with (
            tk.ICD(model, amateur=folder),
            pytest.raises(tk.ModelError, match="keeps its state outside of generate's cache"),
        ):
            model.generate(**padded_batch(9), max_new_tokens=3)

    def test_beams_that_states_in_modules_do_not_follow(self, tmp_path: Any) -> None:
        model = make("recurrent_gemma")
        folder = save_adapter(make("recurrent_gemma"), tmp_path, target_modules=["q_proj", "linear_out"])
        inputs = padded_batch(9, 9)
        with tk.ICD(model, amateur=folder):
            model.generate(**inputs, max_new_tokens=3, do_sample=False)
            with pytest.raises(tk.ModelError, match="keeps states that do not follow beams"):
                model.generate(**inputs, max_new_tokens=3, num_beams=2)

    def test_views_with_longer_prompts_where_padding_is_not_neutral(self) -> None:
        """They run apart: one unpadded prompt keeps its own log-probabilities; the states leave no room for a cache."""
        model, inputs = make("recurrent_gemma"), {"input_ids": padded_batch(7)["input_ids"]}
        with torch.no_grad():
            right = model(**inputs, use_cache=False).logits.log_softmax(dim=-1)
            prompt = torch.tensor([ToyTokenizer()(LIE + "\n\n").input_ids[1:] + inputs["input_ids"][0].tolist()])
            lie = model(prompt, use_cache=False).logits[:, -7:].log_softmax(dim=-1)
        for lam in (0.0, 0.7):
            with tk.ICD(model, ToyTokenizer(), amateur_prompt=LIE, lam=lam, beta=0.0), torch.no_grad():
                found = model(**inputs, use_cache=False).logits
            torch.testing.assert_close(found, right - lam * lie, atol=1e-4, rtol=1e-4)
        with tk.ICD(model, ToyTokenizer(), amateur_prompt=LIE), pytest.raises(tk.ModelError, match="use_cache=False"):
            model.generate(**inputs, max_new_tokens=3)

    def test_which_models_are_neutral_to_padding(self) -> None:
        """As two forwards with and without it show, for all that say that they recur."""
        found = {name: neutral_to_padding(make(name)) for name in ("mamba2", "qwen3_next", "recurrent_gemma", "olmo2")}
        assert found == {"mamba2": True, "qwen3_next": True, "recurrent_gemma": False, "olmo2": True}

    def test_images_by_cross_attention(self) -> None:
        """Mllama: its mask over the prompt's tokens fits no other prompt; and it is no text-only model."""
        vision = {"hidden_size": 32, "num_hidden_layers": 2, "num_global_layers": 1, "attention_heads": 2}
        vision |= {"intermediate_size": 32, "vision_output_dim": 64, "image_size": 28, "max_num_tiles": 1}
        config = MllamaConfig(
            vision_config={**vision, "supported_aspect_ratios": [[1, 1]], "intermediate_layers_indices": [0]},
            text_config={**LLAMA_LIKE, "vocab_size": 128, "cross_attention_layers": [1], "pad_token_id": 0},
            image_token_index=126,
        )
        model: Any = MllamaForConditionalGeneration(config).eval()
        ids = torch.tensor([[1, 126, 40, 50, 60]])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        inputs |= {"pixel_values": torch.ones(1, 1, 1, 3, 28, 28), "aspect_ratio_ids": torch.tensor([[1]])}
        inputs |= {"aspect_ratio_mask": torch.ones(1, 1, 1), "cross_attention_mask": torch.ones(1, 5, 1, 1)}
        plain = model.generate(**inputs, max_new_tokens=3, do_sample=False)
        with (
            tk.ICD(model, ToyTokenizer(), amateur_prompt=LIE),
            pytest.raises(tk.ModelError, match="through cross-attention, by a mask over the prompt's own tokens"),
        ):
            model.generate(**inputs, max_new_tokens=3)
        for make_one in (tk.VCD, tk.M3ID):
            with pytest.raises(tk.ModelError, match="sees images through cross-attention: it has no"):
                make_one(model)
        with tk.APC(model):
            assert torch.equal(model.generate(**inputs, max_new_tokens=3, do_sample=False), plain)

    def test_router(self, tmp_path: Any) -> None:
        model, folder = make("llama4_text"), save_adapter(make("llama4_text"), tmp_path, target_modules=["router"])
        with tk.ICD(model, amateur=folder), pytest.raises(tk.ModelError, match=r"handles tuple .*expert or router"):
            model.generate(**padded_batch(9), max_new_tokens=3)

    def test_blocks_that_cannot_be_told(self) -> None:
        model = make("olmo2")
        model.config.num_hidden_layers = 5
        with pytest.raises(tk.ModelError, match=r"cannot tell the decoder blocks.*num_hidden_layers=5.*layers \(4\)"):
            tk.DoLa(model)

    def test_norm_that_is_not_the_last_step(self) -> None:
        model = make("olmo2")
        model.model.norm.register_forward_hook(lambda _module, _args, output: 2 * output + 1)
        model.model.layers[-1].register_forward_hook(lambda _module, _args, output: output + 1)
        decoder = tk.DoLa(model, layers=[1])
        model.lm_head.register_forward_pre_hook(lambda _module, args: (args[0] - 1,))
        with decoder, pytest.raises(tk.ModelError, match="early exits are not possible in Olmo2ForCausalLM"):
            model.generate(**padded_batch(9), max_new_tokens=3)
