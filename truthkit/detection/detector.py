"""What all detectors have in common: what they are asked and what they find; higher is more likely false."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from truthkit.detection.asked import Asked, Span
    from truthkit.detection.reading import Reader
    from truthkit.statistics.intervals import FloatArray


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

    unit: str = ""
    """What its scores are of; nothing for bare numbers."""

    def facts(self) -> dict[str, str]:
        """What a reader of its scores wants to know of where they were read: vector, layer."""
        return {}

    @abstractmethod
    def found(self, reader: Reader, asked: Sequence[Asked]) -> list[Found]:
        """The scores of answers, in order.

        Raises:
            ArgumentError, ModelError: an answer, a context or the model is not what the method needs.
        """
