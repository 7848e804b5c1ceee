"""truthkit's decoders and steering vectors in vLLM."""

from __future__ import annotations

import logging

__version__ = "0.1.0"

PREFIX = "TruthkitExits"
"""Put before an architecture's name, it is that architecture under a decoder of early exits."""

EXIT_ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


def register() -> None:
    """Tell vLLM of the models with early exits; the entry point of `vllm.general_plugins`, which every engine calls.

    vLLM does not catch what a plug-in raises, so one that it cannot take would stop engines that never asked for it:
    whatever goes wrong here is a word in the log.
    """
    try:
        from vllm import ModelRegistry

        known = set(ModelRegistry.get_supported_archs())
        for name in EXIT_ARCHITECTURES:
            if name in known and PREFIX + name not in known:
                ModelRegistry.register_model(PREFIX + name, f"truthkit_vllm.exits:{PREFIX}{name}")
    except Exception:
        logging.getLogger("vllm.truthkit").warning("truthkit's models are not registered in this vLLM", exc_info=True)
