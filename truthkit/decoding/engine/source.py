"""A prompt as a method sees it that changes its images: what it may look at, ask the model, and note."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from truthkit.decoding.engine.image_inputs import ImageInputs, encoded_already, placeholders, token_types
from truthkit.hf.attention import Watch, asking
from truthkit.hf.ownership import Block
from truthkit.hf.sites import input_device, text_decoder
from truthkit.hf.wrapping import language_half
from truthkit.text.tokens import padded

if TYPE_CHECKING:
    from transformers.cache_utils import Cache

    from truthkit.hf.wrapping import GenerativeModel

Plainly = Callable[[], AbstractContextManager[None]]
"""Makes a block in which the model runs without views."""

Notes = dict[str, Any]
"""What a method noted about the last prompt, by name."""


@dataclass(frozen=True)
class ImageFeatures:
    """What the encoder made of one image: (tokens, hidden), and the same of further layers where a model adds them."""

    features: torch.Tensor
    deep: tuple[torch.Tensor, ...]


def features_of(output: Any) -> list[ImageFeatures]:
    """The images in what an encoder returned."""
    deep = getattr(output, "deepstack_features", None) or ()
    return [ImageFeatures(own, tuple(layer[i] for layer in deep)) for i, own in enumerate(output.pooler_output)]


@dataclass(frozen=True)
class Asked:
    """What was read of prompts for questions about them.

    Attributes:
        cache: of the model itself.
        length: columns of the prompts.
        behind: how many of them are to be read still: they come behind the question, or were not asked, or are the
            last one, behind which the answer begins.
    """

    cache: Cache
    length: int
    behind: int


@dataclass
class Source:
    """A batch as its image views see it, before the model runs.

    Attributes:
        inputs: the main view's image inputs.
        prompts: the unpadded token ids of every prompt.
        model: the model with the vision tower.
        encode: the vision tower and projector; returns what `get_image_features` does.
        plainly: see `Plainly`.
        notes: what the method wants to be known about this prompt; attributes of its session, in the end.
        seen: what `output` returned.
        asked: what was read for the last question.
    """

    inputs: ImageInputs
    prompts: list[list[int]]
    model: GenerativeModel
    encode: Callable[[ImageInputs], Any]
    plainly: Plainly = nullcontext
    notes: Notes = field(default_factory=dict)
    seen: Any = None
    asked: Asked | None = None

    def output(self) -> Any:
        """What the encoder makes of the main view's images; it runs for them once."""
        if self.seen is None:
            self.seen = self.encode(self.inputs)
        return self.seen

    def images(self) -> list[ImageFeatures]:
        """The main view's images, encoded."""
        return features_of(self.output())

    def ask(self, questions: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
        """What the model itself replies to each question about its prompt's images, by greedy search.

        Where all questions begin as their prompts do, the answer goes on from what was read for them.

        Args:
            questions: token ids, one question per prompt, with the prompt's image placeholders in it.
            new_tokens: at most so many in a reply.
        """
        return self._generated(questions, new_tokens)

    def attention(self) -> list[torch.Tensor]:
        """How the last token of each prompt attends to its image tokens: for every block the mean over heads, shape
        (blocks, image tokens).

        The answers go on from what is read for it.

        Raises:
            ModelError: attention cannot be read.
        """
        decoder, weights = text_decoder(language_half(self.model)), Watch(Block("attention to images"))
        with asking(decoder, weights):
            self._generated(self.prompts, 1)
        ids = padded(self.prompts)[0]
        places = placeholders(self.model, ids)
        mean = torch.stack([_over(ids.shape[1], weights.last[layer]) for layer in sorted(weights.last)], dim=1)
        return [row[:, at.to(row.device)] for row, at in zip(mean, places, strict=True)]

    def _generated(self, questions: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
        ids, mask = (tensor.to(input_device(self.model)) for tensor in padded(questions))
        features, width = self.output(), ids.shape[1]
        call: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": new_tokens}
        call |= {"do_sample": False, "num_beams": 1, "num_return_sequences": 1}
        call |= {"return_dict_in_generate": True, "cache_implementation": "dynamic"}
        call |= token_types(self.model, ids, width)
        with ExitStack() as stack:
            stack.enter_context(self.plainly())
            if language_half(self.model) is self.model:
                grids = self.inputs.get("image_grid_thw")
                call |= {"mm_encoder_outputs": {"image": features}}
                call |= {} if grids is None else {"image_grid_thw": grids}
            else:
                call |= self.inputs
                stack.enter_context(encoded_already(self.model, features))
            said: Any = self.model.generate(**call)
        self.asked = _asked(said.cache, self.prompts, questions)
        return said.sequences[:, width:].tolist()


ImageRewrite = Callable[[Source], "ImageInputs | Sequence[ImageFeatures] | None"]
"""Maps a batch to the image inputs of a view, of the same shapes as the main ones, to features of all images that are
made already, or to None for no images."""


def no_images(_source: Source) -> None:
    """The `ImageRewrite` of a view without images; its prompt must have no placeholders."""


def _asked(cache: Cache, prompts: Sequence[list[int]], questions: Sequence[Sequence[int]]) -> Asked | None:
    """None unless all questions differ from their prompts alike."""
    forms = set()
    for prompt, question in zip(prompts, questions, strict=True):
        same = next((i for i, (a, b) in enumerate(zip(prompt, question, strict=False)) if a != b), len(prompt))
        forms.add((len(prompt) - same, len(question) - len(prompt)))
    if len(forms) > 1:
        return None
    return Asked(cache, max(map(len, prompts)), forms.pop()[0] or 1)


def _over(columns: int, weights: torch.Tensor) -> torch.Tensor:
    """Weights of one query, (rows, heads, 1, keys), as their mean over heads for all columns; a window holds the last
    ones.
    """
    mean = weights[:, :, 0].float().mean(dim=1)
    return torch.nn.functional.pad(mean, (columns - mean.shape[1], 0))
