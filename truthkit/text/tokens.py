"""Prompts as token ids, and texts in batches."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import torch

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


def text_tokenizer(processor: Any, needed_for: str) -> Any:
    """The tokenizer itself, or the one inside an image-text processor.

    Raises:
        ArgumentError: `processor` is None.
    """
    if processor is None:
        raise ArgumentError(f"processor is None, but {needed_for} needs the tokenizer; pass it as the second argument.")
    return getattr(processor, "tokenizer", processor)


def padded(rows: Sequence[Sequence[int]], width: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask of rows padded on the left, to `width` at least."""
    width = max(width, *map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        if row:
            ids[i, width - len(row) :], mask[i, width - len(row) :] = torch.tensor(list(row)), 1
    return ids, mask


class TokenLists:
    """Lists of token ids, one after another in one array."""

    def __init__(self) -> None:
        self._ids, self._ends = array("i"), array("q", [0])

    def append(self, ids: Sequence[int]) -> None:
        """Add a text's token ids."""
        self._ids.extend(ids)
        self._ends.append(len(self._ids))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> list[int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._ids[self._ends[index] : self._ends[index + 1]].tolist()

    def __iter__(self) -> Iterator[list[int]]:
        return map(self.__getitem__, range(len(self)))

    def length(self, index: int) -> int:
        """How many tokens list `index` has."""
        return self._ends[index + 1] - self._ends[index]

    def digest(self) -> str:
        """SHA-256 of all of them."""
        return hashlib.sha256(self._ids.tobytes() + self._ends.tobytes()).hexdigest()
