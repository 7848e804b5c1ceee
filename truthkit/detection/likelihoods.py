"""How sure the model was of an answer's tokens: mean and least log-probability, and entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from truthkit.detection.asked import Asked
from truthkit.detection.detector import Detector, Found

if TYPE_CHECKING:
    from truthkit.detection.reading import Reader


class MeanLogProb(Detector):
    """Minus the mean log-probability of the answer's tokens, in nats; a token's score is minus its own.

    Source: length-normalised likelihood, as in A. Malinin and M. Gales, *Uncertainty Estimation in Autoregressive
    Structured Prediction* (arXiv 2002.07650).
    """

    name: ClassVar[str] = "mean_log_prob"
    unit = "nats"

    def found(self, reader: Reader, asked: Sequence[Asked]) -> list[Found]:
        """Scores of nats per token, 0 or more."""
        return [Found(float(-read.log_probs.mean()), -read.log_probs, read.spans) for read in reader.read(asked)]


class MinLogProb(Detector):
    """Minus the log-probability of the answer's least likely token, in nats; a token's score is minus its own.

    Source: the minimum of N. Varshney et al., *A Stitch in Time Saves Nine* (arXiv 2307.03987), over all tokens here.
    A longer answer has more chances of an unlikely token.
    """

    name: ClassVar[str] = "min_log_prob"
    unit = "nats"

    def found(self, reader: Reader, asked: Sequence[Asked]) -> list[Found]:
        """Scores in nats, 0 or more."""
        return [Found(float(-read.log_probs.min()), -read.log_probs, read.spans) for read in reader.read(asked)]


class MeanEntropy(Detector):
    """The mean entropy of the distributions that the answer's tokens were chosen from, in nats.

    It looks at what the model might have said, not at what was said. Source: predictive entropy per token, as in
    Malinin and Gales (arXiv 2002.07650).
    """

    name: ClassVar[str] = "entropy"
    unit = "nats"

    def found(self, reader: Reader, asked: Sequence[Asked]) -> list[Found]:
        """Scores of nats per token, 0 or more."""
        return [Found(float(read.entropies.mean()), read.entropies, read.spans) for read in reader.read(asked)]
