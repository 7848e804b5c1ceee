"""APC, the adaptive plausibility constraint by itself: the control that contrastive decoding is to be held against."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from truthkit.decoding.engine.controls import Control, model_alone
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.options import Beta
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.view import ViewLogits


class APC(Decoder):
    """Keep the tokens with `p >= beta · max p`, and nothing else.

    Contrastive decoders cut off the tail of the distribution before they sample, which by itself brings sampling close
    to greedy search (arXiv 2504.10020): what a method gains beyond this control is the method's.

    Source of the constraint: Li et al., *Contrastive Decoding* (arXiv 2210.15097).

    Args:
        model: the model, plain or PEFT-wrapped.
        processor: not needed; here so that all decoders are built alike.
        beta: cut-off in (0, 1]; 0 is the model itself.

    Example:
        >>> with tk.APC(model):
        ...     model.generate(**inputs, do_sample=True)
    """

    name: ClassVar[str] = "apc"

    def __init__(self, model: Any, processor: Any = None, *, beta: Beta = 0.1):
        super().__init__(model, beta=beta)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        return main.logits

    @classmethod
    def controls(cls, **_options: Any) -> tuple[Control, ...]:
        """The model by itself; the constraint alone is what this is."""
        return model_alone()


class APCLogitsProcessor(DecoderLogitsProcessor, decoder=APC):
    """`APC` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `APC`."""
