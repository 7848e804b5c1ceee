"""LOL, *Lower Layers Matter* (arXiv 2408.08769): contrast with an amateur at the final and at lower layers."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from truthkit.decoding.engine.arithmetic import check_finite, most_divergent, take_layer
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.early_exits import named_layers
from truthkit.decoding.engine.options import Beta, Layers
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.prompt_views import with_instruction
from truthkit.decoding.engine.view import View, ViewLogits
from truthkit.decoding.methods.amateur import amateur_view
from truthkit.hf.wrapping import plain_model

REFOCUS_PROMPT = (
    "You are a careful and truthful assistant. Answer from established facts, and say so when you do not know."
)
"""A refocus instruction for those who bring none; the wording is ours."""


class LOL(Decoder):
    """Multi-layer contrast with an amateur, and a pull towards what an instruction to be truthful changes.

        c_N = log p_N − lam · log p_N^amateur                                   final layer
        c_j = log p_j − lam · log p_j^amateur                                   each early exit j in `layers`
        s   = c_N + omega · mean_j c_j + gamma · (log p_N(y | refocus, x) − log p_N(y | x)),   then the constraint

    The paper establishes the three parts; it gives no equations that are public, and no code was released. The form
    above and all defaults are our reading. lam = 1, omega = 0, gamma = 0 is ICD exactly.

    Args:
        model: the model, plain or PEFT-wrapped.
        processor: its tokenizer or processor; needed for `refocus` and for a prompt-only amateur.
        amateur: adapter, model, or "prompt" for a prompt-only amateur; None is the adapter that comes along with the
            bundled model, and "prompt" for every other one. See `amateur_view`.
        amateur_prompt: a system instruction for the amateur; None is a dishonest one where it is prompt-only.
        layers: lower layers to contrast at: layer numbers, "low" or "high" (as in `DoLa`).
        dynamic: contrast at one of `layers` only, the one farthest from the final layer by Jensen–Shannon divergence,
            chosen per row and token as in DoLa, instead of at all of them.
        refocus: the truthfulness instruction, True for `REFOCUS_PROMPT`, or None for no refocus.
        omega: weight of the lower layers.
        lam: weight of the amateur.
        gamma: weight of the refocus; has no effect without `refocus`.
        beta: plausibility cut-off in (0, 1]; 0 turns it off (for multiple choice).

    Example:
        >>> with tk.LOL(model, tokenizer, amateur="path/to/adapter", layers=[14, 18, 22], refocus=True):
        ...     model.generate(**inputs, max_new_tokens=64)
    """

    name: ClassVar[str] = "lol"
    strengths: ClassVar[frozenset[str]] = frozenset({"lam", "beta"})

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        amateur: Any = None,
        amateur_prompt: str | None = None,
        layers: Layers = "high",
        dynamic: bool = False,
        refocus: str | bool | None = None,
        omega: float = 0.5,
        lam: float = 1.0,
        gamma: float = 0.5,
        beta: Beta = 0.1,
    ):
        self.omega, self.lam, self.gamma = (
            check_finite(name, value) for name, value in (("omega", omega), ("lam", lam), ("gamma", gamma))
        )
        self.dynamic = dynamic
        exits = named_layers(plain_model(model), layers) if self.omega else ()
        views = [amateur_view(model, processor, amateur, amateur_prompt, exits=bool(exits))]
        if refocus and self.gamma:
            views.append(
                View("refocus", prompt=with_instruction(processor, REFOCUS_PROMPT if refocus is True else refocus))
            )
        super().__init__(model, views, layers=exits, beta=beta)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        amateur, *refocus = views
        base = main.logits.log_softmax(dim=-1)
        scores = base - self.lam * amateur.logits.log_softmax(dim=-1)
        if main.exits is not None and amateur.exits is not None:
            lower, lower_amateur = main.exits, amateur.exits
            if self.dynamic:
                chosen = most_divergent(main.logits, lower)
                lower, lower_amateur = take_layer(lower, chosen)[None], take_layer(lower_amateur, chosen)[None]
            contrast = lower.log_softmax(dim=-1) - self.lam * lower_amateur.log_softmax(dim=-1)
            scores = scores + self.omega * contrast.mean(dim=0)
        if refocus:
            scores = scores + self.gamma * (refocus[0].logits.log_softmax(dim=-1) - base)
        return scores


class LOLLogitsProcessor(DecoderLogitsProcessor, decoder=LOL):
    """`LOL` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `LOL`."""
