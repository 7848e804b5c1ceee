"""AdaCAD, adaptive context-aware decoding (Wang et al., arXiv 2409.07394)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch

from truthkit.decoding.engine.arithmetic import check_at_least_zero, jensen_shannon
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.options import Beta
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.prompt_views import Context, without_context
from truthkit.decoding.engine.view import View, ViewLogits


class AdaCAD(Decoder):
    r"""CAD whose strength is how much the context changes: little where context and memory agree.

        s = (1 + α_t) · l(context, x) − α_t · l(x),   α_t = max(theta, JSD(p(context, x), p(x)))  in nats

    Source: the authors' released code, but per row: there the divergence is a mean over the batch.

    Args:
        model: the model, plain or PEFT-wrapped.
        processor: its tokenizer or processor.
        context: the passage to leave out in the second view, as it stands in the prompt; one for all prompts, one
            each, or a function from the rows of token ids to theirs.
        theta: the least strength; published with 0 for short answers and 0.3 for long ones.
        beta: plausibility cut-off in (0, 1]; 0, the default, turns it off.

    Example:
        >>> with tk.AdaCAD(model, tokenizer, context=passage):
        ...     model.generate(**tokenizer(f"{passage}\n\n{question}", return_tensors="pt"), max_new_tokens=64)
    """

    name: ClassVar[str] = "adacad"
    strengths: ClassVar[frozenset[str]] = frozenset({"theta", "beta"})

    def __init__(self, model: Any, processor: Any, *, context: Context, theta: float = 0.0, beta: Beta = 0.0):
        self.theta = check_at_least_zero("theta", theta)
        super().__init__(model, [View("without context", prompt=without_context(processor, context))], beta=beta)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        (without,) = views
        strength = jensen_shannon(main.logits, without.logits[None])[0, ..., None].clamp_min(self.theta)
        return (1.0 + strength) * main.logits - strength * without.logits

    @classmethod
    def cooler(cls, **options: Any) -> float:
        """No divergence is above log 2."""
        return 1.0 + max(float(options["theta"]), math.log(2))


class AdaCADLogitsProcessor(DecoderLogitsProcessor, decoder=AdaCAD):
    """`AdaCAD` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `AdaCAD`."""
