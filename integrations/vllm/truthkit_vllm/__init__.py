"""truthkit's decoders and steering vectors in vLLM."""

from __future__ import annotations

import logging

__version__ = "0.1.0"

PREFIX = "TruthkitDoLa"
"""Put before an architecture's name, it is that architecture under DoLa."""

DOLA_ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


def register() -> None:
    """Tell vLLM of the models under DoLa; the entry point of `vllm.general_plugins`, which every engine calls.

    vLLM does not catch what a plug-in raises, so one that it cannot take would stop engines that never asked for it:
    whatever goes wrong here is a word in the log.
    """
    try:
        from vllm import ModelRegistry

        known = set(ModelRegistry.get_supported_archs())
        for name in DOLA_ARCHITECTURES:
            if name in known and PREFIX + name not in known:
                ModelRegistry.register_model(PREFIX + name, f"truthkit_vllm.dola:{PREFIX}{name}")
    except Exception:
        logging.getLogger("vllm.truthkit").warning("truthkit's models are not registered in this vLLM", exc_info=True)
