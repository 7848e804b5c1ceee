"""AvisC, attentional vision calibration (Woo et al., arXiv 2405.17820)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch

from truthkit.decoding.engine.arithmetic import check_finite
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.options import Beta
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.source import ImageFeatures, Source
from truthkit.decoding.engine.view import View, ViewLogits
from truthkit.errors import ArgumentError
from truthkit.hf.attention import check_readable
from truthkit.hf.sites import text_decoder
from truthkit.hf.wrapping import language_half, plain_model

_SCHEMES = ("zeros", "ones", "noise")


class AvisC(Decoder):
    """Contrast with a view that sees only the "blind" image tokens, which draw most attention whatever is asked.

        a_jk = attention of the prompt's last token to image token k in block j, the mean over heads
        J    = the blocks with most of it, as few as have `layer_gamma` of Σ_jk a_jk together
        B    = {k : a_k ≥ mean(a) + lam · std(a)},   a_k = the mean of a_jk over J
        s    = (1 + alpha) · l(V) − alpha · l(V_B),   then the plausibility constraint by l(V)

    In V_B the features of all image tokens but B are replaced before the language model reads them. B is chosen once,
    by reading the prompt; `generate` goes on from what was read where it can.

    Source: §3 and the released code, whose defaults these are. Here each prompt has its own J and B, and image tokens
    are where the model's own placeholders are.

    Args:
        model: an image-text model, plain or PEFT-wrapped, whose attention runs "sdpa" or "eager".
        processor: not needed; here so that all decoders are built alike.
        layer_gamma: share of the attention to images that the chosen blocks have, in (0, 1].
        lam: how far above the mean a blind token's attention is, in standard deviations.
        alpha: strength of the contrast; 0 is the model itself under the constraint.
        beta: plausibility cut-off in (0, 1]; 0 turns it off.
        masking_scheme: what replaces a feature: "zeros", "ones", or "noise", a standard normal draw.
        seed: another one gives other noise.

    Raises:
        ArgumentError: a number is out of range, an unknown scheme; under `generate`, no image.
        ModelError: a text-only model, or one whose attention cannot be read (flash attention).

    Example:
        >>> with tk.AvisC(model):
        ...     model.generate(**inputs, max_new_tokens=64)
    """

    name: ClassVar[str] = "avisc"
    sees_images: ClassVar[bool] = True
    strengths: ClassVar[frozenset[str]] = frozenset({"alpha", "beta"})

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        layer_gamma: float = 0.5,
        lam: float = 1.0,
        alpha: float = 1.0,
        beta: Beta = 0.1,
        masking_scheme: Literal["zeros", "ones", "noise"] = "zeros",
        seed: int = 0,
    ):
        self.layer_gamma, self.lam = check_finite("layer_gamma", layer_gamma), check_finite("lam", lam)
        if not 0.0 < self.layer_gamma <= 1.0:
            raise ArgumentError(f"layer_gamma is {layer_gamma!r}; expected a share of the attention, in (0, 1].")
        if masking_scheme not in _SCHEMES:
            expected = ", ".join(map(repr, _SCHEMES))
            raise ArgumentError(f"masking_scheme is {masking_scheme!r}; expected one of {expected}.")
        self.alpha, self.masking_scheme, self.seed = check_finite("alpha", alpha), masking_scheme, seed
        super().__init__(model, [View("blind tokens", images=self._blind)], beta=beta)
        check_readable(text_decoder(language_half(plain_model(model))))

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        (blind,) = views
        return (1.0 + self.alpha) * main.logits - self.alpha * blind.logits

    @classmethod
    def cooler(cls, **options: Any) -> float:
        return 1.0 + float(options["alpha"])

    def _blind(self, source: Source) -> list[ImageFeatures]:
        features = []
        images = iter(source.images())
        for attention in source.attention():
            replaced = self.replaced(attention)
            while len(replaced):
                image = next(images)
                own, replaced = replaced.tensor_split([len(image.features)])
                features.append(self._without(image, own))
        return features

    def replaced(self, attention: torch.Tensor) -> torch.Tensor:
        """Which image tokens are not blind, bool, given the attention to each in each block, shape (blocks, tokens)."""
        share, order = (attention.sum(dim=1) / attention.sum()).sort(descending=True)
        count = int((share.cumsum(dim=0) < self.layer_gamma).sum()) + 1
        mean = attention[order[:count]].mean(dim=0)
        return mean < mean.mean() + self.lam * mean.std()

    def _without(self, image: ImageFeatures, replaced: torch.Tensor) -> ImageFeatures:
        own = image.features
        if self.masking_scheme == "noise":
            generator = torch.Generator().manual_seed(self.seed)
            instead = torch.randn(own.shape, generator=generator).to(own)
        else:
            instead = torch.full_like(own, float(self.masking_scheme == "ones"))
        at = replaced.to(own.device)[:, None]
        return ImageFeatures(torch.where(at, instead, own), tuple(deep.masked_fill(at, 0.0) for deep in image.deep))


class AvisCLogitsProcessor(DecoderLogitsProcessor, decoder=AvisC):
    """`AvisC` as one entry of an existing `logits_processor=[...]` list; takes its arguments, and `images`."""
