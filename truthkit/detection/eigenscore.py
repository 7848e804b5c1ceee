"""EigenScore: how far apart several answers to one prompt lie inside the model (INSIDE, C. Chen et al., 2402.03744)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from truthkit.detection.asked import Asked
from truthkit.detection.detector import Detector, Found
from truthkit.errors import ArgumentError

if TYPE_CHECKING:
    from truthkit.detection.reading import Reader
    from truthkit.statistics.intervals import FloatArray


class EigenScore(Detector):
    r"""The mean log-eigenvalue of the covariance of answers that the model draws to a prompt.

        E = 1/K · log det(Σ + alpha · I),   Σ the covariance of the K answers over the features of their states

    The state is that of an answer's last token in the middle layer. Answers that say the same give a low score. It is
    of the prompt: an answer that is given is not looked at. Source: C. Chen et al., *INSIDE: LLMs' Internal States
    Retain the Power of Hallucination Detection* (arXiv 2402.03744), equations 5 and 6; K = 10, temperature 0.5 and
    alpha 0.001 are the paper's. Σ is divided by features − 1 here, which changes no order at one K.

    Args:
        samples: K, 2 or more.
        temperature: of the draws.
        top_p: of the draws.
        layer: whose states; None is the middle one.
        alpha: what is added to every eigenvalue.

    Raises:
        ArgumentError: a number is out of range.
    """

    name: ClassVar[str] = "eigenscore"
    unit = "(mean log-eigenvalue)"
    of_prompt: ClassVar[bool] = True

    def __init__(
        self,
        *,
        samples: int = 10,
        temperature: float = 0.5,
        top_p: float = 0.99,
        layer: int | None = None,
        alpha: float = 1e-3,
    ):
        if samples < 2:
            raise ArgumentError(f"samples is {samples}; expected at least 2, as one answer agrees with itself.")
        for name, value in (("temperature", temperature), ("alpha", alpha)):
            if not value > 0:
                raise ArgumentError(f"{name} is {value}; expected a number above 0.")
        if not 0 < top_p <= 1:
            raise ArgumentError(f"top_p is {top_p}; expected a number in (0, 1].")
        self.samples, self.temperature, self.top_p = samples, temperature, top_p
        self.layer, self.alpha = layer, alpha

    def facts(self) -> dict[str, str]:
        """The layer."""
        return {"layer": "the middle one" if self.layer is None else str(self.layer)}

    def found(self, reader: Reader, asked: Sequence[Asked]) -> list[Found]:
        """Scores without a scale of their own."""
        import numpy as np

        layer = (reader.depth - 1) // 2 if self.layer is None else self.layer % reader.depth
        drawn = reader.write(asked, count=self.samples, temperature=self.temperature, top_p=self.top_p)
        texts = [
            replace(one, answer=text, context=None) for one, some in zip(asked, drawn, strict=True) for text in some
        ]
        states = [read.states[layer][-1] for read in reader.read(texts, layers=[layer], may_be_empty=True)]
        groups = [states[start : start + self.samples] for start in range(0, len(states), self.samples)]
        return [Found(eigenscore(np.stack(group), alpha=self.alpha)) for group in groups]


def eigenscore(states: FloatArray, *, alpha: float = 1e-3) -> float:
    """Of states (answers, features), the mean logarithm of the eigenvalues of their covariance plus alpha."""
    import numpy as np

    centred = states - states.mean(axis=1, keepdims=True)
    covariance = centred @ centred.T / max(states.shape[1] - 1, 1)
    values = np.linalg.eigvalsh(covariance).clip(min=0.0) + alpha
    return float(np.log(values).mean())
