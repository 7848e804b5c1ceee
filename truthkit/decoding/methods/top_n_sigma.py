"""Top-nσ (Tang et al., arXiv 2411.07641): a control that cuts the tail by the logits' spread."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from truthkit.decoding.engine.arithmetic import check_at_least_zero
from truthkit.decoding.engine.controls import Control, model_alone
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.view import ViewLogits


class TopNSigma(Decoder):
    """Keep the tokens with `l ≥ max l − n · σ(l)`, and nothing else.

    A control like `APC`: it changes what sampling draws from and compares with no view. σ is the standard deviation of
    the logits over the vocabulary, without tokens of −inf.

    Args:
        model: the model, plain or PEFT-wrapped.
        processor: not needed; here so that all decoders are built alike.
        n: how many standard deviations, 0 or more; 0 is greedy search.

    Raises:
        ArgumentError: n is out of range.

    Example:
        >>> with tk.TopNSigma(model):
        ...     model.generate(**inputs, do_sample=True)
    """

    name: ClassVar[str] = "top_n_sigma"
    strengths: ClassVar[frozenset[str]] = frozenset({"n"})

    def __init__(self, model: Any, processor: Any = None, *, n: float = 1.0):
        self.n = check_at_least_zero("n", n)
        super().__init__(model)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        logits, real = main.logits, ~main.logits.isneginf()
        count = real.sum(dim=-1, keepdim=True)
        off = (logits - logits.where(real, 0.0).sum(dim=-1, keepdim=True) / count).where(real, 0.0)
        deviation = (off.square().sum(dim=-1, keepdim=True) / (count - 1).clamp_min(1)).sqrt()
        return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) - self.n * deviation, -torch.inf)

    @classmethod
    def controls(cls, **_options: Any) -> tuple[Control, ...]:
        """The model by itself."""
        return model_alone()


class TopNSigmaLogitsProcessor(DecoderLogitsProcessor, decoder=TopNSigma):
    """`TopNSigma` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `TopNSigma`."""
