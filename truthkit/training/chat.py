"""One example as tokens: the prompt exactly as inference writes it, then the answer, of which nothing is ever cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from truthkit.errors import ArgumentError, ModelError
from truthkit.text.template import rendered, template_of
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


def prompt_text(tokenizer: Any, prompt: ChatOrText) -> str:
    """The prompt as text, up to where the answer begins.

    Messages go through the tokenizer's chat template. Without one they stand below each other with an empty line
    between them and after them (ours).
    """
    if isinstance(prompt, str):
        return prompt
    if template_of(tokenizer):
        return rendered(tokenizer, prompt)
    return "".join(f"{message['content']}\n\n" for message in prompt)


def encode(tokenizer: Any, example: Example, max_length: int) -> Encoded:
    """The tokens of an example, no more than `max_length`.

    The answer's tokens are those that the template writes after the prompt, up to and with its end of turn; without a
    template the answer and the end token. If prompt and answer together are tokenised as the prompt is alone, theirs
    are taken, else each is tokenised apart, as generation sees them.

    Raises:
        ArgumentError: the answer is empty, or does not fit even when the prompt's passages are cut.
        ModelError: the template writes a finished conversation otherwise than one that is to be answered.
    """
    if not example.answer.strip():
        raise ArgumentError(f"{example.name}: the answer is empty.")
    ids, start = _joined(tokenizer, example.prompt, example.answer)
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
            ids, start = _joined(tokenizer, prompt, example.answer)
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


def _joined(tokenizer: Any, prompt: ChatOrText, answer: str) -> tuple[list[int], int]:
    text, rest = prompt_text(tokenizer, prompt), _answer_text(tokenizer, prompt, answer)
    start = _tokens(tokenizer, prompt, text)
    whole = _tokens(tokenizer, prompt, text + rest)
    if whole[: len(start)] != start:
        whole = start + _plain(tokenizer, rest)
    if not _templated(tokenizer, prompt) and tokenizer.eos_token_id is not None:
        whole = [*whole, tokenizer.eos_token_id]
    return whole, len(start)


def _answer_text(tokenizer: Any, prompt: ChatOrText, answer: str) -> str:
    """What stands after the prompt, up to the end of the assistant's turn."""
    if isinstance(prompt, str):
        return f" {answer}"
    if not _templated(tokenizer, prompt):
        return answer
    text = prompt_text(tokenizer, prompt)
    whole = rendered(tokenizer, [*prompt, {"role": "assistant", "content": answer}], "closed")
    rest = whole[len(text) :].rstrip() if whole.startswith(text) else ""
    if answer.strip() not in rest:
        raise ModelError(
            "the chat template writes an answered conversation otherwise than one that waits for an answer, so which "
            "tokens are the answer is unknown. Give the tokenizer a template that only appends."
        )
    return rest


def _templated(tokenizer: Any, prompt: ChatOrText) -> bool:
    return not isinstance(prompt, str) and template_of(tokenizer) is not None


def _tokens(tokenizer: Any, prompt: ChatOrText, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=not _templated(tokenizer, prompt)).input_ids)


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def encode_all(
    tokenizer: Any, examples: Sequence[Example], max_length: int, *, skip_long: bool = False
) -> tuple[list[Encoded], int]:
    """All examples' tokens, and how many were left out because they do not fit (none unless `skip_long`).

    Raises:
        ArgumentError: see `encode`; or nothing is left.
    """
    encoded, skipped = [], 0
    for example in examples:
        try:
            encoded.append(encode(tokenizer, example, max_length))
        except ArgumentError:
            if not skip_long or not example.answer.strip():
                raise
            skipped += 1
    if not encoded:
        raise ArgumentError(
            f"there is nothing to train on: {skipped} examples, none of which fits {max_length} tokens."
        )
    return encoded, skipped
