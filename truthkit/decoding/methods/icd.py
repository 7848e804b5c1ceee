"""ICD, induce-then-contrast decoding (Zhang et al., arXiv 2312.15710)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from truthkit.decoding.engine.arithmetic import check_finite
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.options import Beta
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.view import ViewLogits
from truthkit.decoding.methods.amateur import amateur_view


class ICD(Decoder):
    """Contrast the model with an amateur in which hallucination was induced.

        s = log p − lam · log p_amateur,   then the plausibility constraint

    Source: the authors' released code (lam = 1; beta 0.1 for generation, 0 for TruthfulQA multiple choice).

    Args:
        model: the model, plain or PEFT-wrapped.
        processor: its tokenizer or processor; needed for a prompt-only amateur.
        amateur: adapter, model, or "prompt" for a prompt-only amateur; None is the adapter that comes along with the
            bundled model, and "prompt" for every other one. See `amateur_view`.
        amateur_prompt: a system instruction for the amateur; None is a dishonest one where it is prompt-only.
        lam: weight of the amateur; 0 is the model itself under the constraint.
        beta: plausibility cut-off in (0, 1]; 0 turns it off.

    Example:
        >>> with tk.ICD(model, tokenizer, amateur="path/to/adapter"):
        ...     model.generate(**inputs, max_new_tokens=64)
    """

    name: ClassVar[str] = "icd"
    strengths: ClassVar[frozenset[str]] = frozenset({"lam", "beta"})

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        amateur: Any = None,
        amateur_prompt: str | None = None,
        lam: float = 1.0,
        beta: Beta = 0.1,
    ):
        self.lam = check_finite("lam", lam)
        super().__init__(model, [amateur_view(model, processor, amateur, amateur_prompt)], beta=beta)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        (amateur,) = views
        return main.logits.log_softmax(dim=-1) - self.lam * amateur.logits.log_softmax(dim=-1)


class ICDLogitsProcessor(DecoderLogitsProcessor, decoder=ICD):
    """`ICD` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `ICD`."""
