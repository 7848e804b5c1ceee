"""PAI, paying more attention to the image (Liu et al., arXiv 2407.21771)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from truthkit.decoding.engine.arithmetic import check_at_least_zero, check_finite
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.early_exits import blocks_from
from truthkit.decoding.engine.options import Beta, Layers
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.prompt_views import without_images
from truthkit.decoding.engine.source import no_images
from truthkit.decoding.engine.view import AttentionEdit, View, ViewLogits
from truthkit.hf.wrapping import plain_model


class PAI(Decoder):
    """Let the model attend more to its images, and take away what it says without them.

        w_k = w_k + alpha · |w_k|   for the attention scores w (before the softmax) of image tokens k, in `layers`
        s   = gamma · l(V) − (gamma − 1) · l(no image),   then the plausibility constraint by l(V)

    The scores are edited for the token that is read last: the prompt's last one, and every one that is generated. The
    view without the image is not edited.

    Source: §3 and the released code, which contrasts log-probabilities; these differ from logits by a constant.

    Args:
        model: an image-text model, plain or PEFT-wrapped, whose attention runs "sdpa" or "eager".
        processor: its processor or tokenizer; needed where images have marks of their own in the text (Idefics,
            SmolVLM, InternVL).
        alpha: strength of the edit; 0 leaves attention alone. The paper takes 0.5 for LLaVA, 0.2 for others.
        gamma: strength of the contrast; 1 leaves the view without the image out. The released code runs with 2.
        layers: the blocks that are edited, by number; None: all but the first sixteenth, which are the published 2 to
            31 of 32.
        beta: plausibility cut-off in (0, 1]; 0 turns it off.

    Raises:
        ArgumentError: a layer or a number is out of range; under `generate`, a prompt without an image.
        ModelError: a text-only model, or one whose attention cannot be edited (flash attention).

    Example:
        >>> with tk.PAI(model, processor):
        ...     model.generate(**inputs, max_new_tokens=64)
    """

    name: ClassVar[str] = "pai"
    sees_images: ClassVar[bool] = True
    strengths: ClassVar[frozenset[str]] = frozenset({"gamma", "beta"})

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        alpha: float = 0.2,
        gamma: float = 1.1,
        layers: Layers | None = None,
        beta: Beta = 0.1,
    ):
        self.alpha, self.gamma = check_at_least_zero("alpha", alpha), check_finite("gamma", gamma)
        plain = plain_model(model)
        blind = View("no image", prompt=without_images(plain, processor), images=no_images)
        edit = AttentionEdit(blocks_from(plain, layers, 2 / 32), scores=self._raised)
        super().__init__(model, [blind], beta=beta, attention=[edit] if self.alpha else [])

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        (blind,) = views
        return self.gamma * main.logits - (self.gamma - 1.0) * blind.logits

    @classmethod
    def cooler(cls, **options: Any) -> float:
        return max(float(options["gamma"]), 1.0)

    def _raised(self, scores: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return torch.where(images, scores + self.alpha * scores.abs(), scores)


class PAILogitsProcessor(DecoderLogitsProcessor, decoder=PAI):
    """Refused with the reason: the forward whose attention `PAI` edits is over when a logits processor is called."""
