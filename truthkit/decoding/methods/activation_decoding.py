"""Activation Decoding, in-context sharpness as a sign of truth (Chen et al., arXiv 2403.01548)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from truthkit.decoding.engine.arithmetic import check_finite
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.early_exits import layers_at_depth
from truthkit.decoding.engine.options import Beta
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.prompt_exits import PromptExit
from truthkit.decoding.engine.view import ViewLogits
from truthkit.hf.sites import decoder_blocks, resolve_layer
from truthkit.hf.wrapping import plain_model


class ActivationDecoding(Decoder):
    """Prefer tokens that few places of the prompt call for, to those that all of it calls for alike.

        w_v = softmax over the prompt's positions of the early exit's logits for token v
        s   = l − alpha · H(w_v),   H the entropy in nats,   then the plausibility constraint

    The prompt is what `generate` was given, whole: with what begins it, a chat's turns and an image's places, without
    padding. The entropies are computed once, when it is read; the answer's tokens do not enter. A forward that is
    called outside of `generate` takes all of its text for the prompt, unless it goes on from a cache.

    Source: the authors' released code for generating. Its code for scoring choices counts the choice's tokens among the
    prompt's and has no constraint (`beta=0`); here choices are scored with the entropies of their prompt.

    Args:
        model: the model, plain or PEFT-wrapped.
        processor: not used; there so that all decoders are called alike.
        layer: the early exit, a block number. None: that behind which 75 % of the blocks are done, as 24 of 32 are in
            the code's default; the published runs have 26 of 32, 34 of 40 and 70 of 80.
        alpha: strength. 0.1 is the code's default; the published runs have 0.5, 0.8 and 1.0 in models of 7, 13 and 70
            billion parameters.
        beta: plausibility cut-off in (0, 1]; 0 turns it off.
        norm: pass the early exit through the model's final norm. False, as published.

    Raises:
        ArgumentError: the layer or an option is out of range.
        ModelError: early exits cannot be read from this model.

    Example:
        >>> with tk.ActivationDecoding(model, alpha=0.5):
        ...     model.generate(**inputs, max_new_tokens=64)
    """

    name: ClassVar[str] = "activation_decoding"
    strengths: ClassVar[frozenset[str]] = frozenset({"alpha", "beta"})

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        layer: int | None = None,
        alpha: float = 0.1,
        beta: Beta = 0.1,
        norm: bool = False,
    ):
        self.alpha, plain = check_finite("alpha", alpha), plain_model(model)
        (block,) = layers_at_depth(plain, 24 / 32, 24 / 32, 1)
        if layer is not None:
            block = resolve_layer(layer, len(decoder_blocks(plain)))
        super().__init__(model, beta=beta, prompt_exits=[PromptExit(block, norm)])

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        assert main.prompt_entropies is not None
        (entropies,) = main.prompt_entropies
        return main.logits - self.alpha * entropies[:, None]


class ActivationDecodingLogitsProcessor(DecoderLogitsProcessor, decoder=ActivationDecoding):
    """`ActivationDecoding` as one entry of an existing `logits_processor=[...]` list; takes its arguments."""
