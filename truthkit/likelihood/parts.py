"""Prompts and answers read in forwards of their own, so that steering can tell them apart wherever they stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

from truthkit.activations.hooks import Hooked
from truthkit.activations.positions import Positions

_OF_ANSWERS = ("generated", "answer")
_OF_PARTS = ("all", "prompt", *_OF_ANSWERS)
"""Positions of steering that a token has for being part of a prompt or of an answer, whatever is around it."""


def acts_by_part(steering: Hooked) -> bool:
    """Whether it asks of a token no more than which part of its text it is in."""
    return not steering.of_whole_prompt and all(part in _OF_PARTS for part in _each(steering.positions))


def acts_on_answers(steering: Hooked) -> bool:
    """Whether it leaves prompts as they are."""
    return all(part in _OF_ANSWERS for part in _each(steering.positions))


def _each(positions: Positions) -> tuple[Any, ...]:
    return positions if isinstance(positions, tuple) else (positions,)


@contextmanager
def entered(steerings: Sequence[Hooked]) -> Iterator[Sequence[Hooked]]:
    """All of them at work, in their order."""
    with ExitStack() as stack:
        yield [stack.enter_context(steering) for steering in steerings]


@contextmanager
def reading(steerings: Sequence[Hooked], part: Literal["prompt", "answer"]) -> Iterator[None]:
    """Forwards of nothing but prompts, or nothing but answers."""
    try:
        for steering in steerings:
            steering.reads(part)
        yield
    finally:
        for steering in steerings:
            steering.reads(None)
