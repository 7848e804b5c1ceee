"""Benchmarks: what they ask, how answers are scored, and how sure one can be of the result.

Every scorer turns answers into a `Score`: counts per item, metrics that are functions of their totals, intervals that
resample images or questions. `SCORERS` names the modules; nothing is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from truthkit.errors import ArgumentError

SCORERS = {
    "pope": "truthkit.evaluation.tasks.pope.scorer",
    "chair": "truthkit.evaluation.tasks.chair.scorer",
    "mme": "truthkit.evaluation.tasks.mme.scorer",
    "truthfulqa": "truthkit.evaluation.tasks.truthfulqa.choices",
    "factor": "truthkit.evaluation.tasks.factor.scorer",
    "open-ended": "truthkit.evaluation.tasks.open_ended.scorer",
}

__all__ = ["SCORERS", "scorer"]


def scorer(task: str) -> ModuleType:
    """The module that scores a task."""
    if task not in SCORERS:
        raise ArgumentError(f"task is {task!r}; expected one of {', '.join(SCORERS)}.")
    return import_module(SCORERS[task])
