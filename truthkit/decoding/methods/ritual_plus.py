"""RITUAL+ (arXiv 2405.17821): the model names the transformation of its image that would help it most."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from truthkit.decoding.engine.image_rows import Source, token_types
from truthkit.decoding.engine.options import Beta
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.methods.ritual import RITUAL
from truthkit.errors import ArgumentError
from truthkit.hf.growing_cache import GrowingLayer
from truthkit.hf.wrapping import replaced_method
from truthkit.images.reading import ImageSource
from truthkit.images.transforms import TRANSFORMS, TransformChoice
from truthkit.text.template import after_content
from truthkit.text.tokens import text_tokenizer

CHOICE_PROMPT = """\
To answer this, you may look at the image once more after one of these transformations:
{options}
Which one helps you most to answer correctly? Reply with its number only."""
"""What is added to the question to ask for a transformation; the wording is ours."""

_TOKENS = 8
_SEVERAL = ("num_beams", "num_return_sequences")
_OTHER_LOOPS = ("assistant_model", "prompt_lookup_num_tokens", "cache", "past_key_values", "cache_implementation")
_WHOLE = (DynamicLayer, GrowingLayer)


class RITUALPlus(RITUAL):
    """RITUAL whose transformation the model chooses: it is shown the image, the question and a numbered list.

    The choice is made within the same `generate` call, by greedy search. The vision tower reads an image once, and what
    the model has read for the choice, image and question, it does not read again for the answer (except under beams,
    several returned sequences, an assistant, and in models with sliding windows, where it does).

    `chosen` holds the transforms, and `replies` what the model said of each prompt. The first number from 1 to the
    length of the list counts, or else the first name in the reply; where there is neither, one is drawn as in RITUAL,
    and `fell_back` is True for that prompt.

    Source: the paper, which shows the list to the model; the wording (`CHOICE_PROMPT`), the parser and the fall-back
    are ours.

    Args:
        model, processor, images, alpha, beta, seed: as in `RITUAL`.
        transform: the names to choose from (`truthkit.images.transforms.TRANSFORMS`), "random" for all six.
        choice_prompt: another wording; `{options}` stands for the numbered list. It is put behind the question, before
            what the chat template ends the user's turn with.

    Example:
        >>> with tk.RITUALPlus(model, processor, images=image) as ritual:
        ...     model.generate(**inputs, max_new_tokens=64)
        >>> ritual.chosen, ritual.replies
        ([['crop']], ['6'])
    """

    name: ClassVar[str] = "ritual_plus"

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        images: ImageSource | Sequence[Any],
        transform: str | Sequence[str] = "random",
        alpha: float = 3.0,
        beta: Beta = 0.1,
        seed: int = 0,
        choice_prompt: str = CHOICE_PROMPT,
    ):
        super().__init__(model, processor, images=images, transform=transform, alpha=alpha, beta=beta, seed=seed)
        if "{options}" not in choice_prompt:
            raise ArgumentError("choice_prompt has no {options}, where the numbered list of transformations goes.")
        names = list(TRANSFORMS) if transform == "random" else [transform] if isinstance(transform, str) else transform
        self.names = list(names)
        self._tokenizer = text_tokenizer(processor, "the question of RITUAL+")
        options = "\n".join(f"{i}. {name.replace('_', ' ')}" for i, name in enumerate(self.names, start=1))
        question = "\n\n" + choice_prompt.replace("{options}", options)
        self._question = self._tokenizer(question, add_special_tokens=False).input_ids
        self._ending = after_content(processor)
        self.replies: list[str] = []
        self.fell_back: list[bool] = []
        self._read: Any = None
        self._asked = 0

    def choices(self, source: Source) -> list[TransformChoice]:
        self.replies = self._ask(source)
        named = [parse_choice(reply, self.names) for reply in self.replies]
        self.fell_back = [name is None for name in named]
        return [self.transform if name is None else name for name in named]

    def _ask(self, source: Source) -> list[str]:
        """What the model replies for each prompt, by greedy search."""
        rows = [self._with_question(prompt) for prompt in source.prompts]
        width = self._asked = max(map(len, rows))
        ids = torch.zeros(len(rows), width, dtype=torch.long, device=self.front.device)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, width - len(row) :] = torch.tensor(row)
            mask[i, width - len(row) :] = 1
        features = source.output()
        call: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": _TOKENS}
        call |= {"do_sample": False, "num_beams": 1, "num_return_sequences": 1}
        if "image_grid_thw" in source.inputs:
            call["image_grid_thw"] = source.inputs["image_grid_thw"]
        call |= token_types(self.front, ids, width)
        call |= {"return_dict_in_generate": True, "cache_implementation": "dynamic"}
        with self.host._as_it_is():
            if self.front is self.model:
                said = self.front.generate(**call, mm_encoder_outputs={"image": features})
            else:
                with replaced_method(self.front, "get_image_features", lambda _own: lambda *_a, **_k: features):
                    said = self.front.generate(**call, **source.inputs)
        alike = self._ending and all(prompt[-len(self._ending) :] == self._ending for prompt in source.prompts)
        self._read = said.cache if alike and self.front is self.model else None
        return [self._tokenizer.decode(row[width:], skip_special_tokens=True).strip() for row in said.sequences]

    def prefix(self, ids: torch.Tensor, kwargs: dict[str, Any]) -> Any:
        """What was read for the choice up to the end of the question, and the same of the transformed image."""
        cache, self._read = self._read, None
        length = ids.shape[1] - len(self._ending)
        config = kwargs.get("generation_config") or self.model.generation_config
        several = any((kwargs.get(name) or getattr(config, name, None) or 1) > 1 for name in _SEVERAL)
        if cache is None or several or any(kwargs.get(name) is not None for name in _OTHER_LOOPS):
            return None
        if kwargs.get("use_cache") is False or not all(type(layer) in _WHOLE for layer in cache.layers):
            return None
        if ids.shape[1] + len(self._question) != self._asked:
            return None
        if getattr(self.model.config.get_text_config(decoder=True), "use_bidirectional_attention", False):
            return None  # all of a prompt was read in the light of the list
        cache.crop(length - cache.get_seq_length())
        other = self._read_transformed(ids[:, :length], kwargs)
        for mine, theirs in zip(cache.layers, other.layers, strict=True):
            mine.keys, mine.values = torch.cat([mine.keys, theirs.keys]), torch.cat([mine.values, theirs.values])
        return cache

    def _read_transformed(self, ids: torch.Tensor, kwargs: dict[str, Any]) -> Any:
        """A cache of the prompts' first tokens with the transformed image among them."""
        batch, length = ids.shape
        mask = kwargs.get("attention_mask")
        mask = ids.new_ones(ids.shape) if mask is None else mask[:, :length].long()
        types = {name: kwargs[name][:, :length] for name in ("token_type_ids", "mm_token_type_ids") if name in kwargs}
        self._main.begin(kwargs["input_ids"], kwargs.get("attention_mask"))
        axes = self._main.prompt.axes
        positions = (mask.cumsum(dim=1) - 1).clamp_min_(0) if axes is None else axes[:, batch:, :length]
        cache = DynamicCache(config=self.model.config)
        with self.host._as_it_is(), torch.no_grad():
            self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                mm_encoder_outputs={"image": self._main.images.output(batch, [1])},
                cache=cache,
                use_cache=True,
                logits_to_keep=1,
                **types,
            )
        return cache

    def _with_question(self, prompt: list[int]) -> list[int]:
        end = len(prompt) - len(self._ending)
        if not self._ending or prompt[end:] != self._ending:
            return prompt + self._question
        return prompt[:end] + self._question + self._ending


class RITUALPlusLogitsProcessor(DecoderLogitsProcessor, decoder=RITUALPlus):
    """`RITUALPlus` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `RITUALPlus`."""


def parse_choice(reply: str, names: Sequence[str]) -> str | None:
    """The transform that a reply names: the first number of the list, else the first name; None for neither."""
    for number in re.findall(r"(?<![\d.])\d+(?!\d)", reply):
        if 1 <= int(number) <= len(names):
            return names[int(number) - 1]
    plain = reply.lower().replace("_", " ").replace("-", " ")
    found = {plain.find(name.replace("_", " ")): name for name in reversed(names) if name.replace("_", " ") in plain}
    return found[min(found)] if found else None
