"""How rows of one `generate` go their own ways: each chooses by its own settings, and ends by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from truthkit.endpoint.draws import drawn
from truthkit.endpoint.row import Row


class Choosing(LogitsProcessor):
    """Each row's own draw, which greedy search then takes; the last processor.

    Args:
        rows: in the order of the batch.
    """

    def __init__(self, rows: Sequence[Row]):
        self._rows = rows

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores (batch, vocabulary) whose largest are the next tokens; log-probabilities are noted where wanted."""
        going = [index for index, row in enumerate(self._rows) if not row.over]
        for index in going:
            if self._rows[index].wish.top is not None:
                self._rows[index].log_p = scores[index].float().log_softmax(dim=-1)
        drawing = [index for index in going if self._rows[index].wish.temperature]
        if not drawing:
            return scores
        wishes = [self._rows[index].wish for index in drawing]
        settings = [
            [wish.temperature for wish in wishes],
            [wish.top_p for wish in wishes],
            [self._rows[index].uniform() for index in drawing],
        ]
        at = torch.tensor(drawing, device=scores.device)
        tokens = drawn(scores[at], *torch.tensor(settings, device=scores.device))
        return scores.index_put((at, tokens), scores.new_tensor(torch.inf))  # type: ignore[return-value]


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
