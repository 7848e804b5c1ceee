"""A contrast's own scores of given choices, beside the log-probabilities that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from truthkit.evaluation.benchmark import Config

RAW = "raw_"
"""In front of a metric's name: the same of raw scores."""


def raw_of(outputs: Sequence[Any]) -> list[list[float | None]] | None:
    """The raw scores in all outputs of `Asking.choose_both`; None where there was no contrast."""
    found = [output["raw"] for output in outputs if isinstance(output, dict) and "raw" in output]
    return found if found and len(found) == len(outputs) else None


def explained(config: Config) -> list[str]:
    """What the two kinds of metrics are, for a run that has both."""
    if not config.get("raw_scores"):
        return []
    return [
        f"Metrics named {RAW}… sum the contrast's own scores, as the released code of DoLa and ICD does; the others "
        "sum log-probabilities, normalised at each token. Compare each with its own kind; without a contrast the two "
        "are the same."
    ]
