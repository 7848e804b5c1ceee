"""Prompts as token ids, and texts in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from truthkit.errors import ArgumentError

Prompt: TypeAlias = "str | list[dict[str, Any]]"
"""A text, or chat messages that end before the answer."""


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Numbers of texts in batches of at most `budget` padded tokens, shortest first; no batch is empty."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and lengths[i] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def encode_dialogue(tokenizer: Any, prompt: Prompt, answer: str | None = None) -> list[int]:
    """Tokens of a prompt up to where the answer begins, or with the beginning of an answer.

    Raises:
        ArgumentError: the prompt is empty, or messages for a tokenizer without chat template.
    """
    if isinstance(prompt, str):
        if not prompt:
            raise ArgumentError("the prompt is empty; pass a text or chat messages.")
        return list(tokenizer(prompt if answer is None else prompt + answer).input_ids)
    if not prompt:
        raise ArgumentError("the prompt is empty; pass a text or chat messages.")
    if not getattr(tokenizer, "chat_template", None):
        raise ArgumentError("the prompt is chat messages, but this tokenizer has no chat template; pass texts.")
    form: dict[str, Any] = {"add_generation_prompt": True}
    messages = list(prompt)
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
        form = {"continue_final_message": True}
    return list(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **form))
