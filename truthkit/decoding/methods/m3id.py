"""M3ID, multi-modal mutual-information decoding (Favero et al., arXiv 2403.14003)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from truthkit.decoding.engine.arithmetic import check_finite
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.options import Beta
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.prompt_views import without_images
from truthkit.decoding.engine.source import no_images
from truthkit.decoding.engine.view import View, ViewLogits
from truthkit.hf.wrapping import plain_model


class M3ID(Decoder):
    """Amplify what the image changes, the more the longer the answer grows and the image fades from view.

        s = l(V) + (l(V) − l(no image)) · (1 − γ_t) / γ_t,   γ_t = exp(−decay · t),   then the plausibility constraint

    `t` counts the tokens of the answer from 0, so the first one is the model's own.

    Source: RITUAL's released code, which compares with M3ID in this form (decay 0.02, beta 0.1, raw logits). The view
    without the image is the prompt without the image's tokens and their marks.

    Args:
        model: an image-text model, plain or PEFT-wrapped.
        processor: its processor or tokenizer; needed where images have marks of their own in the text (Idefics,
            SmolVLM, InternVL).
        decay: how fast the image is taken to fade, per token; 0 is the model itself under the constraint.
        beta: plausibility cut-off in (0, 1]; 0 turns it off.

    Example:
        >>> with tk.M3ID(model, processor):
        ...     model.generate(**inputs, max_new_tokens=64)
    """

    name: ClassVar[str] = "m3id"
    sees_images: ClassVar[bool] = True
    strengths: ClassVar[frozenset[str]] = frozenset({"decay", "beta"})

    def __init__(self, model: Any, processor: Any = None, *, decay: float = 0.02, beta: Beta = 0.1):
        self.decay = check_finite("decay", decay)
        view = View("no image", prompt=without_images(plain_model(model), processor), images=no_images)
        super().__init__(model, [view], beta=beta)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        (blind,) = views
        steps = main.step + torch.arange(main.logits.shape[1], device=main.logits.device)
        weights = torch.expm1(self.decay * steps.clamp_min(0).to(main.logits.dtype))  # (1 − γ) / γ
        return main.logits + weights[:, None] * (main.logits - blind.logits)


class M3IDLogitsProcessor(DecoderLogitsProcessor, decoder=M3ID):
    """`M3ID` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `M3ID`."""
