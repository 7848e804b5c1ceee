"""DeCo, dynamic correction decoding (Wang et al., arXiv 2410.11779)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from truthkit.decoding.engine.arithmetic import check_finite, check_whole, take_layer
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.early_exits import layers_at_depth, named_layers
from truthkit.decoding.engine.options import Layers
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.view import ViewLogits
from truthkit.errors import ArgumentError
from truthkit.hf.wrapping import plain_model


class DeCo(Decoder):
    """Add the logits of the earlier layer that is surest of one of the likely tokens.

        A        = the `top_k` likeliest tokens of p, cut once they hold `top_p` of it
        (j*, v*) = argmax over early exits j and tokens v in A of p_j(v)
        s        = l + alpha · p_j*(v*) · l_j*  on A,   −∞ elsewhere

    Source: the authors' released code (exits through the final norm), per row and position.

    Args:
        model: the model, plain or PEFT-wrapped.
        processor: not used; there so that all decoders are called alike.
        layers: early exits: layer numbers, "low" or "high" as in `DoLa`, or "all" blocks but the last. None: those
            behind which 62.5 to 87.5 % of the blocks are done, which are the published 20 to 28 of 32.
        alpha: strength of the correction; 0 is the model itself on A.
        top_p: share of the probability that A holds at least, in (0, 1]; 1 cuts nothing.
        top_k: the most tokens that A has; 0 for all. Where answers are given, `top_p=1, top_k=0`: one token outside A,
            and an answer has no probability.
        norm: pass early exits through the model's final norm.

    Raises:
        ArgumentError: a layer or an option is out of range.
        ModelError: early exits cannot be read from this model.

    Example:
        >>> with tk.DeCo(model):
        ...     model.generate(**inputs, max_new_tokens=64)
    """

    name: ClassVar[str] = "deco"
    strengths: ClassVar[frozenset[str]] = frozenset({"alpha", "top_p", "top_k"})

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        layers: Layers | None = None,
        alpha: float = 0.6,
        top_p: float = 0.9,
        top_k: int = 20,
        norm: bool = True,
    ):
        self.alpha, self.top_p = check_finite("alpha", alpha), check_finite("top_p", top_p)
        if not 0.0 < self.top_p <= 1.0:
            raise ArgumentError(f"top_p is {top_p!r}; expected a share of the probability, in (0, 1].")
        self.top_k, plain = check_whole("top_k", top_k), plain_model(model)
        exits = layers_at_depth(plain, 20 / 32, 28 / 32, 9) if layers is None else named_layers(plain, layers)
        super().__init__(model, layers=exits, norm=norm)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        assert main.exits is not None
        vocabulary = main.logits.shape[-1]
        values, tokens = main.logits.topk(min(self.top_k or vocabulary, vocabulary), dim=-1)
        share = (values - main.logits.logsumexp(dim=-1, keepdim=True)).exp()
        held = share.cumsum(dim=-1) - share if self.top_p < 1 else torch.zeros_like(share)
        kept = (held < self.top_p) & ~values.isneginf()
        there = main.exits.gather(-1, tokens.expand(len(main.exits), *tokens.shape))
        surest = (there - main.exits.logsumexp(dim=-1, keepdim=True)).exp().where(kept, 0.0).amax(dim=-1)
        confidence, layer = surest.max(dim=0)
        scores = main.logits + self.alpha * confidence[..., None] * take_layer(main.exits, layer)
        allowed = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, tokens, kept)
        return scores.masked_fill(~allowed, -torch.inf)

    @classmethod
    def cooler(cls, **options: Any) -> float:
        return 1.0 + float(options["alpha"])


class DeCoLogitsProcessor(DecoderLogitsProcessor, decoder=DeCo):
    """`DeCo` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `DeCo`."""
