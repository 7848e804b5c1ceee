"""VCD, visual contrastive decoding (Leng et al., arXiv 2311.16922)."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import torch

from truthkit.decoding.engine.arithmetic import check_finite
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.image_inputs import ImageInputs
from truthkit.decoding.engine.options import Beta
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.source import Source
from truthkit.decoding.engine.view import View, ViewLogits
from truthkit.images.noise import diffusion_noise, signal_and_noise


class VCD(Decoder):
    """Contrast with the same prompt whose images drown in noise: what is said without seeing is taken away.

        s = (1 + alpha) · l(V) − alpha · l(V_noisy),   then the plausibility constraint by l(V)

    The noise is the forward process of a diffusion model on the processed pixels, `diffusion_noise`, drawn per image
    from its pixels and `seed`.

    Source: the authors' released code (alpha 1, beta 0.1, step 500 of 1000).

    Args:
        model: an image-text model, plain or PEFT-wrapped.
        processor: not needed; here so that all decoders are built alike.
        alpha: strength of the contrast; 0 is the model itself under the constraint.
        beta: plausibility cut-off in (0, 1]; 0 turns it off.
        noise_step: how far the image is noised, 0 (faint) to 999.
        seed: another one gives other noise.

    Example:
        >>> with tk.VCD(model):
        ...     model.generate(**inputs, max_new_tokens=64)
    """

    name: ClassVar[str] = "vcd"
    sees_images: ClassVar[bool] = True
    strengths: ClassVar[frozenset[str]] = frozenset({"alpha", "beta"})

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        alpha: float = 1.0,
        beta: Beta = 0.1,
        noise_step: int = 500,
        seed: int = 0,
    ):
        self.alpha, self.noise_step, self.seed = check_finite("alpha", alpha), noise_step, seed
        signal_and_noise(noise_step)
        super().__init__(model, [View("noisy image", images=self._noisy)], beta=beta)

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        (noisy,) = views
        return (1.0 + self.alpha) * main.logits - self.alpha * noisy.logits

    @classmethod
    def cooler(cls, **options: Any) -> float:
        return 1.0 + float(options["alpha"])

    def _noisy(self, source: Source) -> ImageInputs:
        name = next(name for name in ("pixel_values", "pixel_values_images") if name in source.inputs)
        pixels, grids = source.inputs[name], source.inputs.get("image_grid_thw")
        if grids is not None:
            images = [self.drowned(image) for image in pixels.split(grids.prod(dim=1).tolist())]
            return source.inputs | {name: torch.cat(images)}
        return source.inputs | {name: torch.stack([self.drowned(image) for image in pixels])}

    def drowned(self, image: torch.Tensor) -> torch.Tensor:
        """Processed pixels of one image under its noise, as the view has them.

        Tiles that are all zero fill up a batch, and noise would make images of them.
        """
        real = image.flatten(1).any(dim=1) if image.dim() == 4 else slice(None)
        noisy = torch.zeros_like(image)
        noisy[real] = diffusion_noise(image[real][None], step=self.noise_step, seeds=[self._seed(image[real])])[0]
        return noisy

    def _seed(self, image: torch.Tensor) -> int:
        content = image.detach().cpu().float().numpy().tobytes()
        return int.from_bytes(hashlib.sha256(f"{self.seed} ".encode() + content).digest()[:8], "big") >> 1


class VCDLogitsProcessor(DecoderLogitsProcessor, decoder=VCD):
    """`VCD` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `VCD`, and `images`."""
