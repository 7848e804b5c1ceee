"""Several decoders answer one prompt, with progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from truthkit.generation.answers import Answer, answer, parts_at
from truthkit.generation.settings import AnswerSettings


class Contestant(NamedTuple):
    """A decoder with the prompt that it is given, which may hold a passage that others don't see."""

    label: str
    decoder: AbstractContextManager[Any]
    inputs: dict[str, torch.Tensor]
    settings: AnswerSettings


class Shown(NamedTuple):
    """An answer, and how many tokens it shares with the first one (None: it is the first, or the same)."""

    label: str
    answer: Answer
    parts_at: int | None


def answer_all(
    model: Any, processor: Any, contestants: Sequence[Contestant], *, title: str, explain: bool = False
) -> list[Shown]:
    """One answer of each contestant, in order. The progress bar is silent where standard error is no terminal."""
    shown: list[Shown] = []
    total = sum(contestant.settings.max_new_tokens for contestant in contestants)
    bar = tqdm(total=total, desc=title, unit="token", leave=False, disable=None, file=sys.stderr, dynamic_ncols=True)

    def advance(_token: int, _step: Any) -> None:
        bar.update()

    with bar:
        for label, decoder, inputs, settings in contestants:
            bar.set_postfix_str(label)
            before = bar.n
            one = answer(model, processor, decoder, inputs, settings, explain=explain, on_token=advance)
            bar.update(before + settings.max_new_tokens - bar.n)
            shown.append(Shown(label, one, parts_at(shown[0].answer.token_ids, one.token_ids) if shown else None))
    return shown
