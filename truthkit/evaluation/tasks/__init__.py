"""Benchmarks that `truthkit eval` runs: what is asked, and which scorer reads the answers.

A task is a module with a function `task(data, *, options...) -> Task`, where the data is on the hub a `HUB` that says
how it becomes files, and `EXAMPLES` for the help. The command line's options are the function's keyword arguments:
their defaults and annotations are taken from its signature, their help from its docstring. To add a task, write such a
module of about a page and name it in `TASKS`; importing it must be cheap, so scorers are imported inside the function.
"""

from __future__ import annotations

from types import ModuleType

from truthkit.evaluation.running.task import Task
from truthkit.evaluation.tasks.chair import task as chair
from truthkit.evaluation.tasks.factcheck import task as factcheck
from truthkit.evaluation.tasks.factor import task as factor
from truthkit.evaluation.tasks.mme import task as mme
from truthkit.evaluation.tasks.open_ended import task as open_ended
from truthkit.evaluation.tasks.pope import task as pope
from truthkit.evaluation.tasks.truthfulqa import task as truthfulqa
from truthkit.evaluation.tasks.truthfulqa import task_written as truthfulqa_generation

TASKS: dict[str, ModuleType] = {
    "truthfulqa": truthfulqa,
    "truthfulqa-generation": truthfulqa_generation,
    "factor": factor,
    "open-ended": open_ended,
    "factcheck": factcheck,
    "pope": pope,
    "chair": chair,
    "mme": mme,
}
"""Every task's module by its name on the command line."""

__all__ = ["TASKS", "Task"]
