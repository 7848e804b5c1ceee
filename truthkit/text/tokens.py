"""Prompts as token ids, and texts in batches."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from truthkit.errors import ArgumentError

if TYPE_CHECKING:
    import torch

Messages: TypeAlias = list[dict[str, Any]]
"""A chat, one message after another, each with its role and content."""

ChatOrText: TypeAlias = str | Messages
"""A text, or chat messages that end before the answer."""


def batches(lengths: Sequence[int], budget: int, order: Iterable[int] | None = None) -> Iterator[list[int]]:
    """Numbers of texts in batches of at most `budget` tokens, padding included, or of one text; none is empty.

    Args:
        lengths: of the texts.
        budget: how many tokens.
        order: the numbers in the order to take them in; None is shortest first.
    """
    batch: list[int] = []
    width = 0
    for i in sorted(range(len(lengths)), key=lengths.__getitem__) if order is None else order:
        width = max(width, lengths[i])
        if batch and width * (len(batch) + 1) > budget:
            yield batch
            batch, width = [], lengths[i]
        batch.append(i)
    if batch:
        yield batch


def text_tokenizer(processor: Any, needed_for: str) -> Any:
    """The tokenizer itself, or the one inside an image-text processor.

    Raises:
        ArgumentError: `processor` is None.
    """
    if processor is None:
        raise ArgumentError(f"processor is None, but {needed_for} needs the tokenizer; pass it as the second argument.")
    return getattr(processor, "tokenizer", processor)


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """The token ids of a text with the special token in front, but no second one where it begins with that itself.

    What some tokenizers put behind a text, an end token, is left out: the text goes on, or is read up to its own end.
    """
    ids = list(tokenizer(text, add_special_tokens=not begins_itself(tokenizer, text)).input_ids)
    end = getattr(tokenizer, "eos_token", None)
    if ids and end is not None and ids[-1] == tokenizer.eos_token_id and not text.endswith(str(end)):
        del ids[-1]
    return ids


def begins_itself(tokenizer: Any, text: str) -> bool:
    """Whether `text` begins with the token that begins a sequence."""
    bos = getattr(tokenizer, "bos_token", None)
    return bos is not None and text.startswith(str(bos))


def common_start(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two rows begin with alike."""
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def padded(
    rows: Sequence[Sequence[int]], *, side: Literal["left", "right"] = "left", width: int = 0, pad: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of token ids as one tensor, and where a token is; both (rows, width), int64.

    Args:
        rows: the token ids.
        side: where padding goes.
        width: the least width.
        pad: the token that stands for none.
    """
    import torch  # late: the rest serves before a model is loaded

    width = max(width, *map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        if row:
            place = slice(width - len(row), None) if side == "left" else slice(len(row))
            ids[i, place], mask[i, place] = torch.tensor(list(row)), 1
    return ids, mask


class TokenLists:
    """Lists of token ids, one after another in one array."""

    def __init__(self) -> None:
        self._ids, self._ends = array("i"), array("q", [0])

    def append(self, ids: Sequence[int]) -> None:
        """Add a list at the end."""
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
