"""Prompts answered in one batch, and how likely the plain model finds what was written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from truthkit.likelihood.log_probabilities import log_probabilities
from truthkit.text.encode import encode_prompts


class Written(NamedTuple):
    """An answer: its text, and the tokens of prompt and answer."""

    text: str
    prompt_ids: list[int]
    ids: list[int]


def write(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    block: AbstractContextManager[Any],
    *,
    max_new_tokens: int,
    raw: bool = False,
) -> list[Written]:
    """The greedy answers inside `block`, to all prompts at once; with `raw` they are gone on from as they are."""
    inputs = encode_prompts(tokenizer, prompts, raw=raw)
    length = inputs["input_ids"].shape[1]
    with block:
        rows = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)[:, length:].tolist()
    found = []
    for row, ids, kept in zip(rows, inputs["input_ids"], inputs["attention_mask"].bool(), strict=True):
        end = row.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in row else len(row)
        text = tokenizer.decode(row[:end], skip_special_tokens=True).strip()
        found.append(Written(text, ids[kept].tolist(), row[:end]))
    return found


def perplexities(model: Any, answers: Sequence[Written]) -> list[float]:
    """How surprised the plain model is by each answer, per token: 1 is not at all; NaN for an empty answer."""
    some = [one for one in answers if one.ids]
    sums = iter(
        log_probabilities(model, [one.prompt_ids + one.ids for one in some], [len(one.prompt_ids) for one in some])
    )
    return [math.exp(-next(sums) / len(one.ids)) if one.ids else math.nan for one in answers]
