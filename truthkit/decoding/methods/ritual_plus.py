"""RITUAL+ (arXiv 2405.17821): the model names the transformation of its image that would help it most."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from truthkit.decoding.engine.options import Beta
from truthkit.decoding.engine.processor import DecoderLogitsProcessor
from truthkit.decoding.engine.source import Source
from truthkit.decoding.methods.ritual import RITUAL
from truthkit.errors import ArgumentError
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


class RITUALPlus(RITUAL):
    """RITUAL whose transformation the model chooses: it is shown the image, the question and a numbered list.

    The choice is made within the same `generate` call, by greedy search. The vision tower reads an image once, and what
    the model has read for the choice, image and question, it does not read again for the answer (except under beams,
    several returned sequences, an assistant, and in models with sliding windows, where it does).

    The session's `chosen` holds the transforms, and its `replies` what the model said of each prompt. The first number
    from 1 to the length of the list counts, or else the first name in the reply; where there is neither, one is drawn
    as in RITUAL, and `fell_back` is True for that prompt.

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
        question = choice_question(self.names, choice_prompt)
        self._question = self._tokenizer(question, add_special_tokens=False).input_ids
        self._ending = after_content(processor)

    def choices(self, source: Source) -> list[TransformChoice]:
        said = source.ask([self._with_question(prompt) for prompt in source.prompts], _TOKENS)
        replies = [self._tokenizer.decode(reply, skip_special_tokens=True).strip() for reply in said]
        named = [parse_choice(reply, self.names) for reply in replies]
        source.notes |= {"replies": replies, "fell_back": [name is None for name in named]}
        return [self.transform if name is None else name for name in named]

    def _with_question(self, prompt: list[int]) -> list[int]:
        end = len(prompt) - len(self._ending)
        if not self._ending or prompt[end:] != self._ending:
            return prompt + self._question
        return prompt[:end] + self._question + self._ending


class RITUALPlusLogitsProcessor(DecoderLogitsProcessor, decoder=RITUALPlus):
    """`RITUALPlus` as one entry of an existing `logits_processor=[...]` list; takes the arguments of `RITUALPlus`."""


def choice_question(names: Sequence[str], wording: str = CHOICE_PROMPT) -> str:
    """What is put behind the user's question: a blank line, and `wording` with the numbered list of `names`."""
    options = "\n".join(f"{i}. {name.replace('_', ' ')}" for i, name in enumerate(names, start=1))
    return "\n\n" + wording.replace("{options}", options)


def parse_choice(reply: str, names: Sequence[str]) -> str | None:
    """The transform that a reply names: the first number of the list, else the first name; None for neither."""
    for number in re.findall(r"(?<![\d.])\d+(?!\d)", reply):
        if 1 <= int(number) <= len(names):
            return names[int(number) - 1]
    plain = reply.lower().replace("_", " ").replace("-", " ")
    found = {plain.find(name.replace("_", " ")): name for name in reversed(names) if name.replace("_", " ") in plain}
    return found[min(found)] if found else None
