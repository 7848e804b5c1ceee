"""Agreement of views: an answer that is as likely without image or context was not read there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from truthkit.detection.asked import Asked
from truthkit.detection.detector import Detector, Found
from truthkit.errors import ArgumentError

if TYPE_CHECKING:
    from truthkit.detection.reading import Reader


class ViewAgreement(Detector):
    """How likely an answer's tokens are in a second view, against the model's own.

        score of a token = log p'(token) − log p(token),   or −JS(p, p') with measure="js"

    An answer's score is the mean over its tokens. Near 0 or above, the tokens are as likely without what was taken
    away, so that they come from elsewhere; the log-ratio is minus the pointwise mutual information of answer and what
    is missing (L. van der Poel et al., arXiv 2210.13210, detect by entropy and decode by it). The views are those of
    the decoders: `CAD`, `VCD`, `M3ID`, `ICD`.

    Args:
        view: "context" leaves out the context, "vcd" distorts the image, "m3id" leaves it out, "icd" asks for lies.
        measure: "log_ratio", or "js", the divergence of the two distributions, whatever was said.

    Raises:
        ArgumentError: an unknown view or measure; an answer without context, or without image.
    """

    name: ClassVar[str] = "agreement"
    unit = "nats"

    def __init__(
        self,
        *,
        view: Literal["context", "vcd", "m3id", "icd"] = "context",
        measure: Literal["log_ratio", "js"] = "log_ratio",
    ):
        if view not in ("context", "vcd", "m3id", "icd"):
            raise ArgumentError(f"view is {view!r}; expected 'context', 'vcd', 'm3id' or 'icd'.")
        if measure not in ("log_ratio", "js"):
            raise ArgumentError(f"measure is {measure!r}; expected 'log_ratio' or 'js'.")
        self.view, self.measure = view, measure

    def found(self, reader: Reader, asked: Sequence[Asked]) -> list[Found]:
        """Scores in nats."""
        for number, one in enumerate(asked):
            if self.view == "context" and one.context is None:
                raise ArgumentError(f"answers[{number}] has no context; pass contexts=, or name another view.")
            if self.view in ("vcd", "m3id") and not one.images:
                raise ArgumentError(f"answers[{number}] has no image; pass images=, or name another view.")

        def decoder(some: Sequence[Asked]) -> Any:
            from truthkit.decoding.methods.agreement import Agreement
            from truthkit.decoding.methods.cad import CAD

            if self.view == "context":
                contexts = [one.context or "" for one in some]
                return CAD(reader.model, reader.processor, context=contexts)
            return Agreement(reader.model, reader.processor, view=self.view, beta=0.0)

        scores = []
        for read in reader.read(asked, views=decoder):
            tokens = -read.divergences if self.measure == "js" else read.other_log_probs - read.log_probs
            scores.append(Found(float(tokens.mean()), tokens, read.spans))
        return scores
