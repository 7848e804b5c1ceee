"""Log-probabilities of a prompt's own tokens, as benchmarks ask for them: what is read, not what is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from truthkit.decoding.engine.session import Session
from truthkit.endpoint.row import Row, Scored
from truthkit.endpoint.steps import Choosing
from truthkit.errors import ArgumentError
from truthkit.likelihood.logits import logits_at
from truthkit.text.tokens import padded

_LOGITS_AT_A_TIME = 1 << 27
"""Numbers of one forward: half a gigabyte in float32. A prompt that has more is read alone."""


def check_reads_prompts(session: Any, searches: bool) -> None:
    """Raise unless a decoder has scores for the tokens of a prompt: one that searches has none, and one whose views
    have a prompt or images of their own has none at the same tokens.

    Args:
        session: what entering the decoder gave; None for the model alone.
        searches: whether it is a search.

    Raises:
        ArgumentError: it has none.
    """
    views = session.decoder.views if isinstance(session, Session) else ()
    if searches or any(view.prompt is not None or view.images is not None for view in views):
        raise ArgumentError(
            "echo with logprobs asks for the scores of the prompt's tokens, and this decoder has none: it searches, or "
            "compares with another prompt or image. Use one that contrasts layers, an adapter or another model."
        )


def score_prompts(model: Any, rows: Sequence[Row], session: Any) -> None:
    """Tell every row its prompt's tokens with their log-probabilities, and where a new token is wanted that one.

    Args:
        model: under what the rows ask for.
        rows: text prompts.
        session: of the decoder on the model; None without one.
    """
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    for batch in _fitting(rows, _LOGITS_AT_A_TIME // vocabulary):
        ids, mask = padded([row.wish.ids for row in batch])
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
        logits = logits_at(model, ids, mask, positions, ids.shape[1], None)
        for row, own in zip(batch, logits, strict=True):
            if not row.check():
                _tell(row, own[ids.shape[1] - len(row.wish.ids) :])
        del logits


def _tell(row: Row, logits: torch.Tensor) -> None:
    """`logits` of shape (tokens, vocabulary)."""
    ids, top = row.wish.ids, row.wish.top or 0
    log_p = logits[:-1].float().log_softmax(dim=-1)
    own = log_p.gather(-1, torch.tensor(ids[1:], device=log_p.device)[:, None])[:, 0].tolist()
    values, best = log_p.topk(min(top, log_p.shape[-1]), dim=-1)
    tops = [tuple(zip(*pair, strict=True)) for pair in zip(best.tolist(), values.tolist(), strict=True)]
    row.read([Scored(ids[0], None), *map(Scored, ids[1:], own, tops)])
    if row.wish.limit:
        row.put(int(Choosing([row])(None, logits[-1:].float()).argmax()))  # type: ignore[arg-type]
    else:
        row.end("length")


def _fitting(rows: Sequence[Row], tokens: int) -> Iterator[list[Row]]:
    """Rows in batches of at most so many tokens, padding included, or of one row."""
    batch: list[Row] = []
    for row in sorted(rows, key=lambda row: len(row.wish.ids)):
        if batch and len(row.wish.ids) * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(row)
    yield batch
