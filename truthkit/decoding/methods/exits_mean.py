"""The mean of early exits mixed into the logits, as VISTA's self-logits augmentation (Li et al., arXiv 2502.03628)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from truthkit.decoding.engine.arithmetic import check_finite
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.early_exits import layers_at_depth, named_layers
from truthkit.decoding.engine.options import Beta, Layers
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.view import ViewLogits
from truthkit.errors import ArgumentError
from truthkit.hf.wrapping import plain_model


class ExitsMean(Decoder):
    """Mix the mean of early exits into the model's logits.

        s = (1 − share) · l + share · mean of l_j over the exits j,   then the plausibility constraint

    Source: VISTA's second half. `tk.VISTA` runs it together with its steering.

    Args:
        model: the model, plain or PEFT-wrapped.
        processor: not used; there so that all decoders are called alike.
        layers: early exits: layer numbers, "low" or "high" as in `DoLa`, or "all" blocks but the last. None: those
            behind which 78 to 94 % of the blocks are done, which are the published 25 to 30 of 32.
        share: of the exits' mean, in [0, 1]; 0 is the model itself, and reads none.
        norm: pass early exits through the model's final norm.
        beta: plausibility cut-off in (0, 1]; 0 turns it off.

    Raises:
        ArgumentError: a layer or an option is out of range.
        ModelError: early exits cannot be read from this model.

    Example:
        >>> with tk.ExitsMean(model):
        ...     model.generate(**inputs, max_new_tokens=64)
    """

    name: ClassVar[str] = "exits_mean"

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        layers: Layers | None = None,
        share: float = 0.3,
        norm: bool = True,
        beta: Beta = 0.0,
    ):
        self.share, plain = check_finite("share", share), plain_model(model)
        if not 0.0 <= self.share <= 1.0:
            raise ArgumentError(f"share is {share!r}; expected a number in [0, 1].")
        exits = layers_at_depth(plain, 25 / 32, 30 / 32, 6) if layers is None else named_layers(plain, layers)
        super().__init__(model, layers=exits if self.share else (), beta=beta, norm=norm)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        if main.exits is None:
            return main.logits
        return (1.0 - self.share) * main.logits + self.share * main.exits.mean(dim=0)


class ExitsMeanLogitsProcessor(DecoderLogitsProcessor, decoder=ExitsMean):
    """`ExitsMean` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `ExitsMean`."""
