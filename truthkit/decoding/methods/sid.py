"""SID, self-introspective decoding (Huo et al., arXiv 2408.02032)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from truthkit.decoding.engine.arithmetic import check_count, check_finite
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.options import Beta
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.view import AttentionEdit, View, ViewLogits
from truthkit.errors import ArgumentError
from truthkit.hf.sites import decoder_blocks, resolve_layers
from truthkit.hf.wrapping import plain_model


class SID(Decoder):
    """Contrast with a view that keeps only those image tokens that the model cares least for.

        K = the `rank` image tokens with the least attention in block `layer` − 1: by the token that is read last,
            averaged over heads
        s = (1 + alpha) · l(V) − alpha · l(V_K),   then the plausibility constraint by l(V)

    In the view V_K all image tokens but K are hidden from block `layer` on. K is chosen anew for every token that is
    generated; the prompt's own tokens see what its last one chose.

    Source: the paper and its released code, whose defaults these are; that code never reads some of its own options.

    Args:
        model: an image-text model, plain or PEFT-wrapped, whose attention runs "sdpa" or "eager".
        processor: not needed; here so that all decoders are built alike.
        rank: how many image tokens the view keeps; a prompt with no more of them has the view see all.
        layer: the first block that sees K alone, by number; 1 or more.
        alpha: strength of the contrast; 0 is the model itself under the constraint.
        beta: plausibility cut-off in (0, 1]; 0 turns it off.

    Raises:
        ArgumentError: a layer or a number is out of range; under `generate`, no prompt with an image.
        ModelError: a text-only model, or one whose attention cannot be edited (flash attention).

    Example:
        >>> with tk.SID(model):
        ...     model.generate(**inputs, max_new_tokens=64)
    """

    name: ClassVar[str] = "sid"
    sees_images: ClassVar[bool] = True
    strengths: ClassVar[frozenset[str]] = frozenset({"alpha", "beta"})

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        rank: int = 100,
        layer: int = 2,
        alpha: float = 1.0,
        beta: Beta = 0.1,
    ):
        self.rank, self.alpha = check_count("rank", rank), check_finite("alpha", alpha)
        count = len(decoder_blocks(plain_model(model)))
        (self.layer,) = resolve_layers([layer], count)
        if not self.layer:
            raise ArgumentError(
                f"layer is {layer!r}, the first block; expected one behind it, whose attention decides."
            )
        edit = AttentionEdit(tuple(range(self.layer, count)), hidden=self._but_least, seen_at=self.layer - 1)
        super().__init__(model, [View("least attended", attention=(edit,))], beta=beta)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        (least,) = views
        return (1.0 + self.alpha) * main.logits - self.alpha * least.logits

    @classmethod
    def cooler(cls, **options: Any) -> float:
        return 1.0 + float(options["alpha"])

    def _but_least(self, weights: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        attention = weights.float().mean(dim=1).masked_fill(~images, torch.inf)
        least = attention.sort(dim=-1, stable=True).indices[..., : self.rank]
        return images & ~torch.zeros_like(attention, dtype=torch.bool).scatter(-1, least, True)


class SIDLogitsProcessor(DecoderLogitsProcessor, decoder=SID):
    """`SID` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `SID`, and `images`."""
