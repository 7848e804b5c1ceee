"""Pairs as tokens: four bytes each, because they are all that grows with the number of pairs.

Texts with images are kept as messages and go through the processor again when they are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from truthkit.errors import ArgumentError
from truthkit.files.tensors import tensors_sha256
from truthkit.hf.sites import input_device
from truthkit.images.reading import read_image
from truthkit.steering.extraction.copies import same_text
from truthkit.steering.extraction.pairs import Pair, Side, image_source, image_sources, parts
from truthkit.text.dialogue import read_ids
from truthkit.text.template import apply, chat_tokens
from truthkit.text.tokens import Messages, TokenLists, common_start, text_ids, text_tokenizer


@dataclass(frozen=True)
class Pictured:
    """A text with images: messages and ending for its processor, and a digest of what comes out."""

    messages: Messages
    ending: dict[str, bool]
    digest: str


@dataclass
class EncodedPairs:
    """Token ids of all texts: text 2·i is the positive side of pair i, text 2·i + 1 its negative side.

    Attributes:
        processor: what encoded them.
        ids: token ids of every text.
        prompts: how many tokens of every text are prompt.
        groups: the group of every pair, as an index.
        pictured: the texts with images.
    """

    processor: Any = None
    ids: TokenLists = field(default_factory=TokenLists)
    prompts: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    pictured: dict[int, Pictured] = field(default_factory=dict)

    def inputs(self, text: int, model: Any) -> dict[str, torch.Tensor]:
        """What `model` is given for one text: its token ids, a batch of one, and its images."""
        device = input_device(model)
        if (found := self.pictured.get(text)) is None:
            return {"input_ids": torch.tensor([self.ids[text]], device=device)}
        rendered = _inputs_of(self.processor, found.messages, found.ending)
        return {
            name: value.to(device, model.dtype if value.is_floating_point() else value.dtype)
            for name, value in rendered.items()
        }

    def digest(self) -> str:
        """SHA-256 of all token ids, prompt lengths, groups and images."""
        images = [[text, found.digest] for text, found in self.pictured.items()]
        return hashlib.sha256(json.dumps([self.ids.digest(), self.prompts, self.groups, images]).encode()).hexdigest()


def encode_pairs(pairs: Sequence[Pair], processor: Any, limit: int | None = None) -> EncodedPairs:
    """Tokenise every text once.

    Chat messages go through the chat template: a text that ends in an assistant message ends with the last token of its
    content, one that ends in another message with the header of the answer to come.

    Raises:
        ArgumentError: messages without a chat template, images that cannot be read or without a processor for them, or
            a text longer than `limit` tokens.
    """
    encoded = EncodedPairs(processor)
    group_numbers: dict[str, int] = {}
    for number, pair in enumerate(pairs):
        for name in ("positive", "negative"):
            try:
                ids, prompt, pictured = _encode(processor, getattr(pair, name), pair.prompt)
                if limit is not None and len(ids) > limit:
                    raise ArgumentError(f"it has {len(ids)} tokens, but the model has room for {limit}.")
                if not ids:
                    raise ArgumentError("it has no tokens.")
            except ArgumentError as error:
                raise ArgumentError(f"pairs[{number}], {name}: {error}") from None
            if pictured is not None:
                encoded.pictured[len(encoded.ids)] = pictured
            encoded.ids.append(ids)
            encoded.prompts.append(prompt)
        encoded.groups.append(group_numbers.setdefault(_group_key(pair), len(group_numbers)))
    return encoded


def _group_key(pair: Pair) -> str:
    """What pairs have in common that may not be on both sides of a split: a group, a prompt, or all their words."""
    if pair.group is not None:
        return pair.group
    return same_text(pair) if pair.prompt is None else json.dumps(pair.prompt, default=id)  # an opened image is itself


def _encode(processor: Any, side: Side, prompt: Side | None) -> tuple[list[int], int, Pictured | None]:
    """Token ids, how many of them are prompt, and what there is to know of images."""
    tokenizer = text_tokenizer(processor, "pairs")
    if prompt is None and isinstance(side, str):
        ids = text_ids(tokenizer, side)
        return ids, len(ids), None
    if isinstance(prompt, str):
        assert isinstance(side, str)
        return *read_ids(tokenizer, prompt, side), None
    messages = [*(prompt or []), {"role": "assistant", "content": side}] if isinstance(side, str) else side
    answered = messages[-1]["role"] == "assistant"
    asked: Messages = messages[:-1] if answered else messages
    if any(map(image_sources, messages)):
        ending = {"continue_final_message": True} if answered else {"add_generation_prompt": True}
        before = _inputs_of(processor, asked, {"add_generation_prompt": True}) if answered and asked else None
        whole = _inputs_of(processor, messages, ending)
        ids = whole["input_ids"][0].tolist()
        start = 0 if before is None else common_start(before["input_ids"][0].tolist(), ids)
        return ids, start if answered else len(ids), Pictured(messages, ending, tensors_sha256(whole))
    if tokenizer is not processor:  # templates of image-text models take parts, and pass over plain strings
        messages, asked = ([{**one, "content": parts(one["content"])} for one in some] for some in (messages, asked))
    if answered and asked:
        return *read_ids(processor, asked, messages[-1]["content"]), None
    ids = chat_tokens(processor, messages, "open" if answered else "cue")
    return ids, 0 if answered else len(ids), None


def _inputs_of(processor: Any, messages: Messages, ending: dict[str, bool]) -> dict[str, torch.Tensor]:
    """What the model is given for messages with images, as tensors with a batch of one."""
    if not hasattr(processor, "image_processor"):
        raise ArgumentError("the messages hold images, but no image-text processor was given; load such a model.")
    if not getattr(processor, "chat_template", None):
        raise ArgumentError("the messages hold images, but this processor has no chat template.")
    opened = [{**message, "content": _opened(message["content"])} for message in messages]
    made = apply(processor, opened, tokenize=True, return_dict=True, return_tensors="pt", **ending)
    return {name: value for name, value in made.items() if name != "labels"}


def _opened(content: Any) -> list[dict[str, Any]]:
    """A message's content as the list of parts that image-text templates take, with its images opened."""
    return [
        {"type": "image", "image": read_image(source)} if (source := image_source(part)) is not None else part
        for part in parts(content)
    ]
