"""An answer to be judged, and places in one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One answer to be judged.

    Attributes:
        prompt: a user's message, or with a `Reader` that is `raw` a text to go on from.
        answer: what was said to it.
        images: Pillow images in front of the prompt.
        context: the passage of the prompt that the answer is to rest on; None is all of the prompt.
    """

    prompt: str
    answer: str
    images: tuple[Any, ...] = ()
    context: str | None = None


@dataclass(frozen=True)
class Span:
    """Characters `start` to `stop` (exclusive) of an answer: those that a token brought."""

    start: int
    stop: int
