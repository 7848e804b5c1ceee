"""One example as tokens: the prompt exactly as inference writes it, then the answer, of which nothing is ever cut."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from truthkit.errors import ArgumentError
from truthkit.text.dialogue import answered_ids
from truthkit.text.tokens import ChatOrText

LEAST = 8
"""Tokens that are always left of a passage that is cut. Ours."""


@dataclass(frozen=True)
class Example:
    """What is asked and what is to be answered.

    Attributes:
        prompt: chat messages without the answer, or plain text that a space and the answer follow.
        answer: the text to learn.
        spare: passages of the prompt that may be cut at their end where it is too long, the first one first.
        name: how errors call it.
    """

    prompt: ChatOrText
    answer: str
    spare: tuple[str, ...] = ()
    name: str = "the example"


class Encoded(NamedTuple):
    """An example's tokens; the loss is taken on those from `start` on."""

    ids: list[int]
    start: int
    cut: bool


def encode(tokenizer: Any, example: Example, max_length: int, stops: Collection[int] = ()) -> Encoded:
    """The tokens of an example, no more than `max_length`.

    The answer's tokens are those that the template writes after the prompt, up to and with its end of turn; see
    `truthkit.text.dialogue`. Where the last one does not end generation, the end token follows.

    Args:
        tokenizer: the tokenizer.
        example: the example.
        max_length: how many tokens there may be.
        stops: the tokens that end generation, the tokenizer's end token aside.

    Raises:
        ArgumentError: the answer is empty, or does not fit even when the prompt's passages are cut.
        ModelError: the template writes a finished conversation otherwise than one that is to be answered.
    """
    if not example.answer.strip():
        raise ArgumentError(f"{example.name}: the answer is empty.")
    ends = frozenset([*stops, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])])
    ids, start = _joined(tokenizer, example.prompt, example.answer, ends)
    prompt, cut = example.prompt, False
    for passage in example.spare:
        if len(ids) <= max_length:
            break
        shorter = passage
        while len(ids) > max_length and len(tokens := _plain(tokenizer, shorter)) > LEAST:
            before, keep = shorter, max(LEAST, len(tokens) - (len(ids) - max_length))
            shorter = tokenizer.decode(tokens[:keep], clean_up_tokenization_spaces=False)
            if len(shorter) >= len(before):  # tokens that do not decode to themselves
                shorter = before[: len(before) * 3 // 4]
            prompt, cut = _replaced(prompt, before, shorter), True
            ids, start = _joined(tokenizer, prompt, example.answer, ends)
    if len(ids) > max_length:
        raise ArgumentError(
            f"{example.name}: its answer has {len(ids) - start} tokens and its prompt, cut as far as it may be, "
            f"{start}; max_length is {max_length}. Raise it, or leave out what does not fit (skip_long)."
        )
    return Encoded(ids, start, cut)


def _replaced(prompt: ChatOrText, passage: str, shorter: str) -> ChatOrText:
    if isinstance(prompt, str):
        return prompt.replace(passage, shorter, 1)
    *before, last = prompt
    return [*before, {**last, "content": last["content"].replace(passage, shorter, 1)}]


def _joined(tokenizer: Any, prompt: ChatOrText, answer: str, stops: frozenset[int]) -> tuple[list[int], int]:
    if isinstance(prompt, str) and not prompt[-1:].isspace():
        answer = f" {answer}"
    ids, start = answered_ids(tokenizer, prompt, answer, "closed")
    if ids[-1] not in stops and (stop := _stop(tokenizer, stops)) is not None:
        ids = [*ids, stop]
    return ids, start


def stops_of(model: Any) -> set[int]:
    """The tokens that end the model's answers, by its generation config."""
    found = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return set() if found is None else {found} if isinstance(found, int) else set(found)


def _stop(tokenizer: Any, stops: frozenset[int]) -> int | None:
    """The token that ends an answer whose template does not."""
    own: int | None = tokenizer.eos_token_id
    return own if own is not None else min(stops, default=None)


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def encode_all(
    tokenizer: Any,
    examples: Sequence[Example],
    max_length: int,
    *,
    stops: Collection[int] = (),
    skip_long: bool = False,
) -> tuple[list[Encoded], int]:
    """All examples' tokens, and how many were left out because they do not fit (none unless `skip_long`).

    Where neither the model nor the tokenizer has a token that ends generation, a warning says so.

    Raises:
        ArgumentError: see `encode`; or nothing is left.
    """
    if not stops and tokenizer.eos_token_id is None:
        warnings.warn(
            "neither the tokenizer nor the model's generation config has an end token, so no answer ends in one and an "
            "adapter never learns to stop; set tokenizer.eos_token.",
            stacklevel=2,
        )
    encoded, skipped = [], 0
    for example in examples:
        try:
            encoded.append(encode(tokenizer, example, max_length, stops))
        except ArgumentError:
            if not skip_long or not example.answer.strip():
                raise
            skipped += 1
    if not encoded:
        raise ArgumentError(
            f"there is nothing to train on: {skipped} examples, none of which fits {max_length} tokens."
        )
    return encoded, skipped
