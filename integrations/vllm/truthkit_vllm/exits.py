"""Decoders of early exits inside the model: exits ride behind the hidden state, and `compute_logits` combines them.

vLLM hands `forward`'s result, at the positions whose logits it wants, to `compute_logits` and looks at no other part of
it. So a hidden state may be several side by side, and the exits go through norm and head for those positions alone.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.mistral import MistralForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM

from truthkit_vllm import scores, spec
from truthkit_vllm.layers import exit_layers
from truthkit_vllm.settings import Settings, check_runner

_FORMULAS = {"dola": scores.dola, "sled": scores.sled, "deco": scores.deco}

_AT_ONCE = 2**26
"""How many logits are computed at once, 256 MB of them; formulas need a few times as much beside them."""


class Exits:
    """What is put before a model's class. The decoder is the one in truthkit's settings.

    Raises:
        ValueError: no decoder of early exits is named, or the engine has what this cannot do.
    """

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "", **others: Any):
        check_runner(vllm_config, "a decoder of early exits")
        if vllm_config.parallel_config.pipeline_parallel_size > 1 or vllm_config.speculative_config is not None:
            raise ValueError("exits are read in one process, of tokens that stand; leave stages and speculation out.")
        if vllm_config.lora_config is not None:
            raise ValueError("exits are more rows than vLLM's head expects beside adapters; leave enable_lora out.")
        text = Settings.of(vllm_config).decoder
        name, options = spec.decoder(text) if text is not None else ("", {})
        if name not in _FORMULAS:
            raise ValueError(f"decoder is {text!r} for a model with exits; expected one of {', '.join(_FORMULAS)}.")
        super().__init__(vllm_config=vllm_config, prefix=prefix, **others)
        exits = exit_layers(options.pop("layers"), self.config.num_hidden_layers)
        read = sorted(set(exits))
        self.model.aux_hidden_state_layers = tuple(layer + 1 for layer in read)
        self._order = [read.index(layer) for layer in exits]
        self._norm = options.pop("norm")
        self._formula = partial(_FORMULAS[name], **options)

    def forward(self, *args: Any, **named: Any) -> torch.Tensor:
        """Hidden states of shape (tokens, (1 + exits) × features), the normalised last one first."""
        last, exits = self.model(*args, **named)
        return torch.cat([last, *exits], dim=-1)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """The decoder's scores, shape (rows, vocabulary); None where another process has them."""
        rows = max(_AT_ONCE // ((1 + len(self._order)) * self.config.vocab_size), 1)
        found = [self._scores(part) for part in hidden_states.split(rows)]
        return None if found[0] is None else torch.cat(found)

    def _scores(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        last, *exits = hidden_states.split(self.config.hidden_size, dim=-1)
        early = torch.cat([exits[place] for place in self._order])
        logits = super().compute_logits(torch.cat([last, self.model.norm(early) if self._norm else early]))
        if logits is None:
            return None
        layers = logits.float().unflatten(0, (1 + len(self._order), len(hidden_states)))
        return self._formula(layers[0], layers[1:])


class TruthkitExitsLlamaForCausalLM(Exits, LlamaForCausalLM):
    """Llama and what shares its class."""


class TruthkitExitsMistralForCausalLM(Exits, MistralForCausalLM):
    """Mistral."""


class TruthkitExitsQwen2ForCausalLM(Exits, Qwen2ForCausalLM):
    """Qwen2."""


class TruthkitExitsQwen3ForCausalLM(Exits, Qwen3ForCausalLM):
    """Qwen3."""
