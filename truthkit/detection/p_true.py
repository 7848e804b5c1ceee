"""P(True): the model is asked whether an answer is true (S. Kadavath et al., arXiv 2207.05221)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from truthkit.detection.asked import Asked
from truthkit.detection.detector import Detector, Found
from truthkit.errors import ArgumentError

if TYPE_CHECKING:
    from truthkit.detection.reading import Reader

TEMPLATE = """\
Question: {prompt}
Proposed Answer: {answer}
Is the proposed answer:
 (A) True
 (B) False
The proposed answer is:"""
"""The paper's question, without its examples; one template for text and images."""


class PTrue(Detector):
    """One minus the probability of "(A)" against "(B)", where the model is asked whether the answer is true.

    Source: S. Kadavath et al., *Language Models (Mostly) Know What They Know* (arXiv 2207.05221), section 3.1, without
    few-shot examples. The answer is judged as a whole: its tokens have no scores.
    """

    name: ClassVar[str] = "p_true"
    unit = "(probability)"
    probability: ClassVar[bool] = True

    def found(self, reader: Reader, asked: Sequence[Asked]) -> list[Found]:
        """Probabilities of a false answer."""
        questions = [
            replace(one, prompt=TEMPLATE.format(prompt=one.prompt, answer=one.answer), answer=choice, context=None)
            for one in asked
            for choice in ((" (A)", " (B)") if reader.raw else ("(A)", "(B)"))
        ]
        for number, one in enumerate(asked):
            if not one.answer.strip():
                raise ArgumentError(f"answers[{number}] is empty; a score is of what was said.")
        sums = [float(read.log_probs.sum()) for read in reader.read(questions)]
        return [Found(_share(false - true)) for true, false in zip(sums[::2], sums[1::2], strict=True)]


def _share(odds: float) -> float:
    """The logistic function, which no log-odds make overflow."""
    return 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))
