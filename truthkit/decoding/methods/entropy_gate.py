"""Greedy search at uncertain steps only: a control for methods that act where the model is unsure."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from truthkit.decoding.engine.arithmetic import check_at_least_zero
from truthkit.decoding.engine.controls import Control, model_alone
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.view import ViewLogits


class EntropyGate(Decoder):
    """Take the likeliest token where the model's entropy is above `threshold`, and leave all as it is elsewhere.

    A control (ours): contrasts change most where the model is unsure, and part of what they gain over sampling may be
    that nothing is drawn there any more. Under greedy search it changes nothing.

    Args:
        model: the model, plain or PEFT-wrapped.
        processor: not needed; here so that all decoders are built alike.
        threshold: entropy of the next token in nats, 0 or more; 0 is greedy search.

    Raises:
        ArgumentError: threshold is out of range.

    Example:
        >>> with tk.EntropyGate(model, threshold=1.0):
        ...     model.generate(**inputs, do_sample=True)
    """

    name: ClassVar[str] = "entropy_gate"
    strengths: ClassVar[frozenset[str]] = frozenset({"threshold"})

    def __init__(self, model: Any, processor: Any = None, *, threshold: float = 1.0):
        self.threshold = check_at_least_zero("threshold", threshold)
        super().__init__(model)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        entropy = torch.special.entr(main.logits.softmax(dim=-1)).sum(dim=-1, keepdim=True)
        others = main.logits < main.logits.amax(dim=-1, keepdim=True)
        return main.logits.masked_fill(others & (entropy > self.threshold), -torch.inf)

    @classmethod
    def controls(cls, **_options: Any) -> tuple[Control, ...]:
        """The model by itself."""
        return model_alone()


class EntropyGateLogitsProcessor(DecoderLogitsProcessor, decoder=EntropyGate):
    """`EntropyGate` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `EntropyGate`."""
