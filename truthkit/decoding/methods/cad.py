"""CAD, context-aware decoding (Shi et al., arXiv 2305.14739)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from truthkit.decoding.engine.arithmetic import check_finite
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.options import Beta
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.prompt_views import Context, without_context
from truthkit.decoding.engine.view import View, ViewLogits


class CAD(Decoder):
    r"""Amplify what the context in the prompt changes.

        s = (1 + alpha) · l(context, x) − alpha · l(x)

    Source: the authors' released code (alpha 0.5 to 1, no plausibility constraint). Raw logits, as published.

    Args:
        model: the model, plain or PEFT-wrapped.
        processor: its tokenizer or processor.
        context: the passage to leave out in the second view, as it stands in the prompt; one for all prompts, one
            each, or a function from the rows of token ids to theirs.
        alpha: strength of the contrast; 0 is the model itself.
        beta: plausibility cut-off in (0, 1]; 0, the default, turns it off.

    Example:
        >>> with tk.CAD(model, tokenizer, context=passage):
        ...     model.generate(**tokenizer(f"{passage}\n\n{question}", return_tensors="pt"), max_new_tokens=64)
    """

    name: ClassVar[str] = "cad"
    strengths: ClassVar[frozenset[str]] = frozenset({"alpha", "beta"})

    def __init__(self, model: Any, processor: Any, *, context: Context, alpha: float = 0.5, beta: Beta = 0.0):
        self.alpha = check_finite("alpha", alpha)
        super().__init__(model, [View("without context", prompt=without_context(processor, context))], beta=beta)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        (without,) = views
        return (1.0 + self.alpha) * main.logits - self.alpha * without.logits

    @classmethod
    def cooler(cls, **options: Any) -> float:
        return 1.0 + float(options["alpha"])


class CADLogitsProcessor(DecoderLogitsProcessor, decoder=CAD):
    """`CAD` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `CAD`."""
