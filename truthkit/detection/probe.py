"""A linear probe on hidden states: how little an answer's states lie along a direction from false to true."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from truthkit.detection.asked import Asked
from truthkit.detection.detector import Detector, Found
from truthkit.errors import ArgumentError

if TYPE_CHECKING:
    from truthkit.detection.reading import Reader
    from truthkit.steering.vector import SteeringVector


class Probe(Detector):
    """Minus the projection of the answer's states on the direction of a probe; a token's score is that of its state.

    The probe is an ordinary vector file, as `tk.extract` or `truthkit extract` makes it with true answers as positive
    and false ones as negative sides: `--method logistic --positions answer`. Its held-out groups say how well it reads
    answers to other questions. Positions "answer" take the mean over the answer's tokens, "last" the last one.
    Source: A. Azaria and T. Mitchell, *The Internal State of an LLM Knows When It's Lying* (arXiv 2304.13734), whose
    probe is a small network.

    Args:
        vector: the file, or a `SteeringVector`.
        layer: the layer to read; None is the one with the best held-out AUC.

    Raises:
        ArgumentError: no vector was given, or of a site or positions that are not read here.
    """

    name: ClassVar[str] = "probe"
    unit = "(minus the projection)"

    def __init__(self, *, vector: Path | SteeringVector | None = None, layer: int | None = None):
        if vector is None:
            raise ArgumentError(
                "the probe has no vector; make one with truthkit extract PAIRS --method logistic --positions answer, "
                "and pass vector=FILE."
            )
        self.given, self.layer = vector, layer

    def facts(self) -> dict[str, str]:
        """The vector, and its layer that is read."""
        vector = self._read()
        name = Path(self.given).name if isinstance(self.given, str | Path) else repr(vector)
        return {"vector": name, "layer": f"{self._layer(vector)} of {vector.layer_count}, counted from 0"}

    def found(self, reader: Reader, asked: Sequence[Asked]) -> list[Found]:
        """Scores in the units of the vector."""
        vector, layer, positions = self._checked(reader)
        direction = vector[layer].double().numpy()
        scores = []
        for read in reader.read(asked, layers=[layer]):
            tokens = -(read.states[layer][1:] @ direction)
            score = tokens[-1] if positions == "last" else tokens.mean()
            scores.append(Found(float(score), tokens, read.spans))
        return scores

    def _checked(self, reader: Reader) -> tuple[SteeringVector, int, str]:
        vector = self._read()
        vector.check_model(reader.plain)
        if vector.site != "block":
            raise ArgumentError(f"the probe was read at {vector.site!r}; expected one of the blocks' outputs.")
        positions = vector.provenance.get("positions", "answer")
        if positions not in ("answer", "generated", "last"):
            raise ArgumentError(
                f"the probe was read at positions {positions!r}; expected 'answer' or 'last', for a score of answers."
            )
        return vector, self._layer(vector), positions

    def _read(self) -> SteeringVector:
        from truthkit.steering.formats import read_vector

        return read_vector(str(self.given)) if isinstance(self.given, str | Path) else self.given

    def _layer(self, vector: SteeringVector) -> int:
        only = vector.layers[0] if len(vector) == 1 else None
        return vector.number(self.layer if self.layer is not None else vector.best_layer() if only is None else only)
