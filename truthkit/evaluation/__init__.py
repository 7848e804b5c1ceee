"""Benchmarks: what they ask, how answers are scored, and how sure one can be of the result.

Every scorer turns answers into a `Score`: counts per item, metrics that are functions of their totals, intervals that
resample images or questions. `SCORERS` names the modules; nothing is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from truthkit.errors import ArgumentError

SCORERS = {
    "pope": "truthkit.evaluation.pope",
    "chair": "truthkit.evaluation.chair",
    "mme": "truthkit.evaluation.mme",
    "truthfulqa": "truthkit.evaluation.truthfulqa",
    "factor": "truthkit.evaluation.factor",
    "open-ended": "truthkit.evaluation.open_ended",
}

__all__ = ["SCORERS", "scorer"]


def scorer(task: str) -> ModuleType:
    """The module that scores a task."""
    if task not in SCORERS:
        raise ArgumentError(f"task is {task!r}; expected one of {', '.join(SCORERS)}.")
    return import_module(SCORERS[task])
