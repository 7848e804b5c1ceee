"""Several decoders answer one prompt: their answers as they are written, or how far they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from rich.console import Console
from tqdm import tqdm

from truthkit.cli.streaming import Streaming
from truthkit.decoding.opera.search import OPERA
from truthkit.generation.answers import Answer, OnToken, answer, parts_at
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
    model: Any,
    processor: Any,
    contestants: Sequence[Contestant],
    *,
    title: str,
    explain: bool = False,
    console: Console | None = None,
) -> list[Shown]:
    """One answer of each contestant, in order.

    Args:
        model: as from `tk.load`.
        processor: its tokenizer or processor.
        contestants: who answers.
        title: what is answered, for the progress.
        explain: record traces.
        console: where answers are shown while they are written and cleared away when all are done, if it is a terminal.
            None, or another output: a progress bar, where standard error is a terminal.
    """
    shown: list[Shown] = []
    live = console if console is not None and console.is_terminal else None
    follow = _Bar(contestants, title) if live is None else Streaming(live, processor, title)
    with follow:
        for label, decoder, inputs, settings in contestants:
            final = settings.num_beams == 1 and not isinstance(decoder, OPERA)
            advance = follow.begin(label, settings.max_new_tokens, final=final)
            one = answer(model, processor, decoder, inputs, settings, explain=explain, on_token=_first(advance))
            shown.append(Shown(label, one, parts_at(shown[0].answer.token_ids, one.token_ids) if shown else None))
    return shown


class _Bar:
    """A progress bar over the tokens of all answers, silent where standard error is no terminal."""

    def __init__(self, contestants: Sequence[Contestant], title: str):
        total = sum(contestant.settings.max_new_tokens for contestant in contestants)
        self._bar = tqdm(total=total, desc=title, unit="token", leave=False, disable=None, dynamic_ncols=True)
        self._ends = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.close()

    def begin(self, label: str, most: int, *, final: bool) -> Callable[[int], None]:
        """The next answer: what the one before it did not need counts as done."""
        self._bar.update(self._ends - self._bar.n)
        self._ends += most
        self._bar.set_postfix_str(label)

        def advance(_token: int) -> None:
            self._bar.update()

        return advance


def _first(advance: Callable[[int], None]) -> OnToken:
    return lambda token, _step: advance(token)
