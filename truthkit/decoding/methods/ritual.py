"""RITUAL (arXiv 2405.17821): the image beside a random transformation of itself."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image

from truthkit.decoding.engine.arithmetic import check_finite
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.image_inputs import ImageInputs
from truthkit.decoding.engine.options import Beta
from truthkit.decoding.engine.pictures import Pictures
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.source import Source
from truthkit.decoding.engine.view import View, ViewLogits
from truthkit.images.reading import ImageSource
from truthkit.images.transforms import TransformChoice, choose, content_seed, transformed


class RITUAL(Decoder):
    """Add the logits of the same prompt with its images transformed.

        s = l(V) + alpha · l(T(V)),   then the plausibility constraint by l(V)

    `T` is drawn once per image and question and kept for the whole answer; the draw depends on the image, the prompt
    and `seed` alone, so a run can be repeated, resumed or cut into other batches. After each prompt the session's
    `chosen` holds the names of the transforms, a list per prompt; `seeds` and `crop_size` are what `transformed` drew
    them with.

    Source: the authors' released code (raw logits, alpha 3, beta 0.1, six transforms). They sample from `s`: added
    logits sharpen the distribution, so compare with sampling at temperature 1 / (1 + alpha) and with the constraint
    alone before crediting the transform.

    Args:
        model: an image-text model, plain or PEFT-wrapped.
        processor: its processor, whose image processor is used, or the image processor.
        images: the images of the prompts, in their order: one image, a list with one per prompt, or a list of lists;
            each a Pillow image, a path or bytes.
        transform: "random", a name (`truthkit.images.transforms.TRANSFORMS`), a list of names to draw from, or a
            function of one RGB image.
        alpha: weight of the transformed image; 0 is the model itself under the constraint.
        beta: plausibility cut-off in (0, 1]; 0 turns it off.
        seed: another one gives other draws.

    Example:
        >>> with tk.RITUAL(model, processor, images=image) as ritual:
        ...     model.generate(**inputs, max_new_tokens=64)
        >>> ritual.chosen
        [['horizontal_flip']]
    """

    name: ClassVar[str] = "ritual"
    sees_images: ClassVar[bool] = True
    strengths: ClassVar[frozenset[str]] = frozenset({"alpha", "beta"})

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        images: ImageSource | Sequence[Any],
        transform: TransformChoice = "random",
        alpha: float = 3.0,
        beta: Beta = 0.1,
        seed: int = 0,
    ):
        self.alpha, self.seed = check_finite("alpha", alpha), seed
        self.pictures, self.transform = Pictures(processor, images), transform
        super().__init__(model, [View("transformed image", images=self._transformed)], beta=beta)
        choose(transform, random.Random(0))  # an unknown name fails here, not at the first prompt

    def combine(self, main: ViewLogits, *views: ViewLogits) -> torch.Tensor:
        (other,) = views
        return main.logits + self.alpha * other.logits

    @classmethod
    def cooler(cls, **options: Any) -> float:
        return 1.0 + float(options["alpha"])

    def choices(self, source: Source) -> list[TransformChoice]:
        """What to draw from, for each prompt."""
        return [self.transform] * len(source.prompts)

    def _transformed(self, source: Source) -> ImageInputs:
        size = self.pictures.crop_size(source.inputs)
        rows: list[list[Image.Image]] = []
        chosen: list[list[str]] = []
        seeds: list[list[int]] = []
        for images, prompt, choice in zip(
            self.pictures.as_in(source.inputs, len(source.prompts)), source.prompts, self.choices(source), strict=True
        ):
            text = " ".join(map(str, prompt))
            drawn = [content_seed(image, text, self.seed) for image in images]
            made = [transformed(image, choice, seed=seed, size=size) for image, seed in zip(images, drawn, strict=True)]
            rows.append([image for image, _ in made])
            chosen.append([name for _, name in made])
            seeds.append(drawn)
        source.notes |= {"chosen": chosen, "seeds": seeds, "crop_size": size}
        return source.inputs | self.pictures.processed(rows, self.front.device)


class RITUALLogitsProcessor(DecoderLogitsProcessor, decoder=RITUAL):
    """`RITUAL` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `RITUAL`."""
