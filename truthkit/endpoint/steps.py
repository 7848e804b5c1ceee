"""How rows of one `generate` go their own ways: each chooses by its own settings, and ends by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from truthkit.endpoint.row import Row


class Choosing(LogitsProcessor):
    """Each row's own draw, which greedy search then takes; the last processor.

    Args:
        rows: in the order of the batch.
    """

    def __init__(self, rows: Sequence[Row]):
        self._rows = rows

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores (batch, vocabulary), those of rows that draw replaced."""
        chosen = [own if row.over else row.choose(own) for row, own in zip(self._rows, scores.split(1), strict=True)]
        return torch.cat(chosen).to(scores.dtype)  # type: ignore[return-value]


class Following(StoppingCriteria):
    """Hands every row its new token, and ends those that are over.

    Args:
        rows: in the order of the batch.
    """

    def __init__(self, rows: Sequence[Row]):
        self._rows = rows

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> Any:
        """Which rows are over, bool, shape (batch,)."""
        for row, token in zip(self._rows, input_ids[:, -1].tolist(), strict=True):
            row.put(token)
        return torch.tensor([row.over for row in self._rows], device=input_ids.device)


class AllOver(StoppingCriteria):
    """Ends a search among beams once nobody waits for any of its answers.

    Args:
        rows: all of the batch.
    """

    def __init__(self, rows: Sequence[Row]):
        self._rows = rows

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> Any:
        """All or none, bool, shape (batch,)."""
        over = sum(row.check() for row in self._rows) == len(self._rows)
        return torch.full((len(input_ids),), over, device=input_ids.device)
