"""What all detectors have in common: what they are asked and what they find; higher is more likely false."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from truthkit.errors import ArgumentError

if TYPE_CHECKING:
    from truthkit.detection.reading import Reader
    from truthkit.statistics.intervals import FloatArray


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


@dataclass(frozen=True)
class Found:
    """What a detector made of one answer.

    Attributes:
        score: of the whole answer.
        tokens: of each of its tokens, shape (tokens,); None for detectors that judge answers as a whole.
        spans: of these tokens.
    """

    score: float
    tokens: FloatArray | None = None
    spans: Sequence[Span] = ()


class Detector(ABC):
    """A way to score answers; its constructor's keyword-only arguments are its options."""

    name: ClassVar[str]
    """In `tk.detect(..., method=...)` and on command lines."""

    probability: ClassVar[bool] = False
    """Whether its score is the probability of a false answer, and can be calibrated as it is."""

    of_prompt: ClassVar[bool] = False
    """Whether it judges what the model would say to the prompt, whatever the answer is."""

    @abstractmethod
    def found(self, reader: Reader, asked: Sequence[Asked]) -> list[Found]:
        """The scores of answers, in order.

        Raises:
            ArgumentError, ModelError: an answer, a context or the model is not what the method needs.
        """


def numbered(number: int, what: str, error: ArgumentError) -> ArgumentError:
    """The error of one answer or prompt of several, which names it."""
    return ArgumentError(f"{what}[{number}]: {error}")
