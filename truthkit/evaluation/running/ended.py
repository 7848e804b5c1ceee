"""Answers that are over before the model says so, as at the end of a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import StoppingCriteria


class EndedAnswers(StoppingCriteria):
    """A stopping criterion of one call of `generate`, for each row by its answer's text so far.

    Args:
        tokenizer: of the answers.
        ended: whether an answer is over.
    """

    def __init__(self, tokenizer: Any, ended: Callable[[str], bool]):
        self._tokenizer, self._ended = tokenizer, ended
        self._start: int | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        if self._start is None:
            self._start = input_ids.shape[1] - 1
        texts = (self._tokenizer.decode(row, skip_special_tokens=True) for row in input_ids[:, self._start :])
        return torch.tensor([self._ended(text) for text in texts], device=input_ids.device)
