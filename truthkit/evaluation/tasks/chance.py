"""What guessing scores where that depends on what was asked: as many choices, as many false answers."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from truthkit.evaluation.benchmark import Lines


def one_in(field: str, *, category: str = "") -> Callable[[Lines], float]:
    """The mean over lines, of one category if it is named, of 1 / how many this field holds: choices, labels."""
    return lambda lines: fmean(
        1 / len(line[field]) for line in lines if not category or str(line["category"]) == category
    )


def expected(metric: str) -> Callable[[Lines], float]:
    """The mean over lines of what their scorer expects of a guess, `chance`, for this metric."""
    return lambda lines: fmean(line["chance"][metric] for line in lines)
