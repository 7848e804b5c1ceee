"""Log-probabilities of given texts under a model and a decoder, with what they begin with read once for all.

Rows that share their first tokens, as all questions behind one few-shot prompt do, share their computation: the prefix
is one forward of one row, and the batches go on from it (`truthkit.decoding.branches`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from truthkit.decoding.attach import plain_model
from truthkit.decoding.branches import BranchedCache, can_branch
from truthkit.decoding.cache import GrowingCache
from truthkit.decoding.decoder import Decoder

_WORTH = 16
"""Fewer shared tokens than this are not read apart."""


def log_probabilities(
    model: Any,
    rows: Sequence[Sequence[int]],
    starts: Sequence[int],
    decoder: Decoder | None = None,
    *,
    batch_tokens: int = 2048,
    share_prefix: bool = True,
    on_rows: Callable[[int], None] = lambda _count: None,
) -> list[float]:
    """The log-probability of each row from its start on: the sum over its tokens, natural logarithm.

    Args:
        model: a causal language model; under `decoder` its logits are the decoder's.
        rows: token ids.
        starts: for each row the first position that counts, at least 1.
        decoder: attached to `model` by the caller, or None.
        batch_tokens: how many tokens, padding and shared ones aside, are read at a time.
        share_prefix: read the rows' common beginning once.
        on_rows: called with the number of rows that were just done.
    """
    shared = _common(rows, min(starts, default=1) - 1) if share_prefix else 0
    prefix = _Prefix(model, rows[0][:shared], decoder) if shared >= _WORTH else None
    if prefix is None or not prefix.usable:
        prefix, shared = None, 0
    lengths = [len(row) - shared for row in rows]
    scores = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lengths.__getitem__)
    while order:
        some = [order.pop()]
        while order and (len(some) + 1) * lengths[some[0]] <= batch_tokens:
            some.append(order.pop())
        tails = [list(rows[i][shared:]) for i in some]
        for i, score in zip(some, _scored(model, tails, [starts[i] - shared for i in some], prefix), strict=True):
            scores[i] = score
        on_rows(len(some))
    return scores


class _Prefix:
    """Tokens that were read once, in the model's own cache."""

    def __init__(self, model: Any, ids: Sequence[int], decoder: Decoder | None):
        self.ids, self.decoder = torch.tensor([list(ids)], device=model.device), decoder
        self.cache = GrowingCache(config=model.config.get_text_config(decoder=True))
        self.usable = can_branch(self.cache)
        if self.usable:
            with torch.no_grad():
                model(input_ids=self.ids, cache=self.cache)


def _scored(model: Any, rows: list[list[int]], starts: list[int], prefix: _Prefix | None) -> list[float]:
    """Scores of rows of which a prefix may have been read already; they are padded on the left."""
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :], mask[i, width - len(row) :] = torch.tensor(row), 1
    past = 0 if prefix is None else prefix.ids.shape[1]
    positions = past + (mask.cumsum(dim=1) - 1).clamp_min(0)
    mask = torch.cat([mask.new_ones(len(rows), past), mask], dim=1)
    counted = [len(row) - start for row, start in zip(rows, starts, strict=True)]
    keep = max(counted) + 1
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    accepted = inspect.signature(plain_model(model).forward).parameters
    call: dict[str, Any] = {name: value.to(model.device) for name, value in inputs.items() if name in accepted}
    if "logits_to_keep" in accepted:
        call["logits_to_keep"] = keep
    with torch.no_grad():
        if prefix is None:
            logits = model(**call, use_cache=False).logits
        elif prefix.decoder is None:
            logits = model(**call, cache=BranchedCache(prefix.cache)).logits
        else:
            with prefix.decoder.branched(prefix.cache, len(rows)) as cache:
                logits = model(**call, cache=cache).logits
    log_p = logits[:, -keep:-1].float().log_softmax(dim=-1)
    each = log_p.gather(-1, call["input_ids"][:, 1 - keep :, None])[..., 0]
    return [float(each[i, each.shape[1] - count :].sum()) for i, count in enumerate(counted)]


def _common(rows: Sequence[Sequence[int]], most: int) -> int:
    """How many first tokens all rows share, at most so many."""
    if not rows:
        return 0
    length = 0
    for column in zip(*rows, strict=False):  # to the end of the shortest
        if length == most or len(set(column)) > 1:
            break
        length += 1
    return length
