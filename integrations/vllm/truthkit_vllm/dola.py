"""DoLa inside the model: early exits ride behind the hidden state, and `compute_logits` contrasts them.

vLLM hands `forward`'s result, at the positions whose logits it wants, to `compute_logits` and looks at no other part of
it. So a hidden state may be several side by side, and the exits go through norm and head for those positions alone.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.mistral import MistralForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM

from truthkit_vllm import scores, spec
from truthkit_vllm.settings import Settings, check_runner


def exit_layers(layers: str | tuple[int, ...], count: int) -> tuple[int, ...]:
    """Layer numbers in order, or the blocks that "low", "high" and "all" stand for, as in truthkit.

    Raises:
        ValueError: the model, which has `count` blocks, has no such layer.
    """
    if layers == "low":
        first = 1 if count > 2 else 0
        return tuple(range(first, max(min(count // 2, 20) - 1, first + 1), 2))
    if layers == "high":
        return tuple(range(max(count // 2, count - 20, 1) - 1, count - 1, 2))
    if isinstance(layers, str):
        return tuple(range(max(count - 1, 1)))
    if wrong := [layer for layer in layers if not -count <= layer < count]:
        raise ValueError(f"layers of DoLa names {wrong[0]}; the model has {count} decoder blocks.")
    return tuple(sorted({layer % count for layer in layers}))


class DoLa:
    """What is put before a model's class; options are those of the decoder `dola` in truthkit's settings.

    Raises:
        ValueError: another decoder is named, or the engine has what this cannot do.
    """

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "", **others: Any):
        check_runner(vllm_config, "DoLa")
        if vllm_config.parallel_config.pipeline_parallel_size > 1 or vllm_config.speculative_config is not None:
            raise ValueError("DoLa reads every layer in one process and speculates on no token; leave both out.")
        name, options = spec.decoder(Settings.of(vllm_config).decoder or "dola")
        if name != "dola":
            raise ValueError(f"decoder is {name!r} for a model under DoLa; expected dola, with options if any.")
        super().__init__(vllm_config=vllm_config, prefix=prefix, **others)
        self.exits = exit_layers(options["layers"], self.config.num_hidden_layers)
        self._beta, self._norm = options["beta"], options["norm"]
        self.model.aux_hidden_state_layers = tuple(layer + 1 for layer in self.exits)

    def forward(self, *args: Any, **named: Any) -> torch.Tensor:
        """Hidden states of shape (tokens, (1 + exits) × features), the normalised last one first."""
        last, exits = self.model(*args, **named)
        return torch.cat([last, *exits], dim=-1)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """DoLa's scores, shape (rows, vocabulary); None where another process has them."""
        rows, width = len(hidden_states), self.config.hidden_size
        last, *exits = hidden_states.split(width, dim=-1)
        early = torch.cat(exits)
        logits = super().compute_logits(torch.cat([last, self.model.norm(early) if self._norm else early]))
        if logits is None:
            return None
        layers = logits.float().view(1 + len(exits), rows, -1)
        return scores.dola(layers[0], layers[1:], beta=self._beta)


class TruthkitDoLaLlamaForCausalLM(DoLa, LlamaForCausalLM):
    """Llama and what shares its class, under DoLa."""


class TruthkitDoLaMistralForCausalLM(DoLa, MistralForCausalLM):
    """Mistral under DoLa."""


class TruthkitDoLaQwen2ForCausalLM(DoLa, Qwen2ForCausalLM):
    """Qwen2 under DoLa."""


class TruthkitDoLaQwen3ForCausalLM(DoLa, Qwen3ForCausalLM):
    """Qwen3 under DoLa."""
