"""What a study asks: models, tasks, methods."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from truthkit.study.way import Way

Names: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class ModelEntry:
    """A `[[model]]`: what `tk.load` takes, the size of batches, and the amateur of decoders that want one."""

    id: str
    model: str
    revision: str | None = None
    adapter: str | None = None
    dtype: str | None = None
    device_map: str | None = None
    batch_size: int | None = None
    amateur: str | None = None


@dataclass(frozen=True)
class TaskEntry:
    """A `[[task]]`: a benchmark on its data, how it is split, and the margin within which differences do not matter.

    Attributes:
        id: of the entry; the benchmark's name by default.
        task: the benchmark.
        data: file or folder.
        margin: in the units of the headline metric, a share as 0.02.
        development: share of the families that go to the development part.
        development_data: another file for that part; then all of `data` is the test part.
        limit, development_limit: at most so many items of the test and of the development part.
        options: of the benchmark, read.
        max_new_tokens: of written answers (default: the benchmark's).
        models: ids of the models that it is put to (default: all).
    """

    id: str
    task: str
    data: Path
    margin: float
    development: float = 0.2
    development_data: Path | None = None
    limit: int | None = None
    development_limit: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    max_new_tokens: int | None = None
    models: Names = ()


@dataclass(frozen=True)
class MethodEntry:
    """A `[[method]]`: one row of every set that it is for.

    Attributes:
        id: of the entry; its decoder by default.
        candidates: what is chosen from on development, in the order of the file; one where there is no grid.
        tasks, models: ids that it is for (default: all).
    """

    id: str
    candidates: tuple[Way, ...]
    tasks: Names = ()
    models: Names = ()

    def is_for(self, task: str, model: str) -> bool:
        """Whether it has a row in the set of this task and model."""
        return (not self.tasks or task in self.tasks) and (not self.models or model in self.models)


Entry: TypeAlias = ModelEntry | TaskEntry | MethodEntry


@dataclass(frozen=True)
class Study:
    """A study's file.

    Attributes:
        path: of the file.
        name, note: for people; a file without a name only adds to a study.
        settings: `seed`, `seeds`, `alpha`, `level`, `resamples`.
        models, tasks, methods: its entries.
        decided: every decision as it is written, by its kind and id: what amending must not touch.
    """

    path: Path
    name: str
    note: str
    settings: dict[str, Any]
    models: tuple[ModelEntry, ...]
    tasks: tuple[TaskEntry, ...]
    methods: tuple[MethodEntry, ...]
    decided: dict[str, dict[str, Any]]
