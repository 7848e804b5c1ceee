"""One prompt, one decoder, one answer: with its tokens, its speed, and where it parts from another answer."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import StoppingCriteria

from truthkit.decoding.contrastive_search.search import ContrastiveSearch
from truthkit.decoding.engine.session import Session
from truthkit.decoding.engine.source import Notes
from truthkit.decoding.opera.search import OPERA
from truthkit.errors import ArgumentError
from truthkit.generation.explain import Step, Trace, TraceProcessor
from truthkit.generation.settings import AnswerSettings
from truthkit.hf.room import check_room
from truthkit.hf.sites import input_device
from truthkit.text.tokens import text_tokenizer

OnToken = Callable[[int, Step | None], None]
"""Takes the first row's new token, and its step of the trace where there is one."""


@dataclass(frozen=True)
class Answer:
    """What came out.

    Attributes:
        text: without special tokens.
        token_ids: the new tokens, the end token included.
        finished: whether the model ended by itself, below `max_new_tokens`.
        step_seconds: the time of every decoding step after the first, which belongs to the prompt.
        trace: one entry per token, where an explanation was asked for.
        notes: what the method noted about the prompt: RITUAL the transforms that it chose.
        share: of a decoder with a gate, in which share of the steps it fired; None without one.
    """

    text: str
    token_ids: list[int]
    finished: bool
    step_seconds: tuple[float, ...]
    trace: list[Step] | None = None
    notes: Notes = field(default_factory=dict)
    share: float | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Decoding speed without the prompt's forward; None for fewer than two tokens."""
        return len(self.step_seconds) / sum(self.step_seconds) if self.step_seconds else None


def answer(
    model: Any,
    processor: Any,
    decoder: AbstractContextManager[Any],
    inputs: dict[str, torch.Tensor],
    settings: AnswerSettings,
    *,
    explain: bool = False,
    on_token: OnToken = lambda token, step: None,
    stop: Callable[[], bool] = lambda: False,
) -> Answer:
    """Generate under `decoder`, which is entered and left here.

    Args:
        model: as from `tk.load`.
        processor: its tokenizer or processor.
        decoder: a decoder for this model, or `nullcontext()` for the model alone.
        inputs: one prompt, from `encode_prompt`.
        settings: of `generate`.
        explain: record a trace; not with beams, where tokens of one answer come from different rows.
        on_token: called after every decoding step.
        stop: asked after every decoding step; True ends the answer there.

    Raises:
        ArgumentError: prompt and new tokens do not fit the model; or `explain` with beams, OPERA's included.
    """
    if explain:
        settings.check_one_row()
        if isinstance(decoder, OPERA):
            raise ArgumentError("an explanation follows one row, and OPERA's beams go back; leave out one of the two.")
    _check_room(model, inputs["input_ids"].shape[1], settings.max_new_tokens)
    tokenizer = text_tokenizer(processor, "an answer")
    options = settings.for_generate()
    with ExitStack() as stack:
        session = stack.enter_context(decoder)
        trace = _trace(tokenizer, session, settings) if explain else None
        watch = _Watch(trace, on_token, stop)
        if trace and isinstance(session, Session):
            session.observers.append(trace.observe)
        elif trace:
            options["logits_processor"] = [TraceProcessor(trace)]
        if settings.sample:
            stack.enter_context(torch.random.fork_rng([model.device] if model.device.type == "cuda" else []))
            torch.manual_seed(settings.seed)
        device = input_device(model)
        moved = {name: value.to(device) for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        sequences = model.generate(**moved, **options, stopping_criteria=[watch])
    ids = sequences[0, inputs["input_ids"].shape[1] :].tolist()
    end = model.generation_config.eos_token_id
    ends = end if isinstance(end, list) else [end]
    end_at = next((i for i, token in enumerate(ids) if token in ends), None)
    ids = ids if end_at is None else ids[: end_at + 1]
    return Answer(
        text=tokenizer.decode(ids, skip_special_tokens=True),
        token_ids=ids,
        finished=end_at is not None,
        step_seconds=tuple(after - before for before, after in itertools.pairwise(watch.times)),
        trace=trace.steps[: len(ids)] if trace else None,
        notes=session.notes if isinstance(session, Session) else {},
        share=session.share if isinstance(session, Session) else None,
    )


def parts_at(first: Sequence[int], other: Sequence[int]) -> int | None:
    """How many tokens two answers have in common before they part; None if they are the same."""
    if list(first) == list(other):
        return None
    same = 0
    while same < min(len(first), len(other)) and first[same] == other[same]:
        same += 1
    return same


class _Watch(StoppingCriteria):
    """Sees every decoding step, in all modes of `generate`, and stops it where it is asked to."""

    def __init__(self, trace: Trace | None, on_token: OnToken, stop: Callable[[], bool]):
        self.times: list[float] = []
        self._trace, self._on_token, self._stop = trace, on_token, stop

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> Any:
        self.times.append(time.perf_counter())
        token = int(input_ids[0, -1])
        if self._trace:
            self._trace.emitted(token)
        self._on_token(token, self._trace.steps[-1] if self._trace else None)
        return torch.full((len(input_ids),), self._stop(), device=input_ids.device)


def _trace(tokenizer: Any, session: Any, settings: AnswerSettings) -> Trace:
    otherwise = "sampling" if settings.sample else "logits processors"
    if isinstance(session, ContrastiveSearch):
        otherwise = "degeneration penalty"
    return Trace(tokenizer.decode, session.decoder if isinstance(session, Session) else None, otherwise=otherwise)


def _check_room(model: Any, length: int, new_tokens: int) -> None:
    what = f"the prompt, {length} tokens, with up to {new_tokens} new ones"
    check_room(model, length + new_tokens, what, "shorten the prompt or ask for fewer")
