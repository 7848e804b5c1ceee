"""The runs of a study: each once, whoever comes first, with a model loaded only where there is something to ask."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truthkit.activations.hooks import Hooked
from truthkit.errors import NotAvailableError, TruthkitError
from truthkit.evaluation.report.compare import Run, read_run
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.records import ITEMS, SUMMARY
from truthkit.evaluation.running.runs import run
from truthkit.files.lock import holder, turn
from truthkit.files.reading import read_records
from truthkit.models import load
from truthkit.steering.spec import parse_steer
from truthkit.study.clock import clock
from truthkit.study.decisions import Looks
from truthkit.study.entries import ModelEntry
from truthkit.study.pace import Asked, Pace
from truthkit.study.sets import StudySet
from truthkit.study.way import Way

RUNS = "runs"
_EVERY = 1.0
"""Seconds between looks at runs that other processes are doing."""

Say = Callable[[str], None]
"""Takes a line about how far things are."""


@dataclass(frozen=True)
class Job:
    """One run: a part of a set, asked in one way under one seed.

    Attributes:
        of: the set.
        part: "development" or "test".
        way, seed: how it is asked.
        rows: labels of the rows that it is for.
        stage: in which it was decided.
    """

    of: StudySet
    part: str
    way: Way
    seed: int
    rows: tuple[str, ...]
    stage: int = 1

    @property
    def key(self) -> str:
        """Its folder's name."""
        return self.of.key(self.part, self.way, self.seed)

    @property
    def size(self) -> int:
        """How many items it asks."""
        return len(self.of.chosen(self.part))

    @property
    def asked(self) -> Asked:
        """What it asks, for its pace."""
        return Asked(self.of.id, self.of.model.id, self.size)


class Models:
    """The models of a study, one in memory at a time."""

    def __init__(self) -> None:
        self._entry: ModelEntry | None = None
        self._loaded: tuple[Any, Any, dict[str, Any]] | None = None

    def get(self, entry: ModelEntry) -> tuple[Any, Any, dict[str, Any]]:
        """Model, processor, and what only the caller of a decoder knows, its amateur."""
        if entry != self._entry or self._loaded is None:
            self._entry, self._loaded = None, None
            gc.collect()
            where = {"device_map": entry.device_map} if entry.device_map else {}
            options: dict[str, Any] = where | {"dtype": entry.dtype}
            model, processor = load(entry.model, revision=entry.revision, adapter=entry.adapter, **options)
            supplied = {} if entry.amateur is None else {"amateur": _amateur(entry, model, options)}
            self._entry, self._loaded = entry, (model, processor, supplied)
        return self._loaded


def finished(folder: Path) -> bool:
    """Whether a run's folder has all of it."""
    return (folder / SUMMARY).is_file() and (folder / ITEMS).is_file()


def seconds_of(folder: Path) -> float:
    """How long the items of a run took, from its records."""
    files = folder.glob("records*.jsonl")
    return sum(float(record.fields.get("seconds") or 0) for file in files for record in read_records(file))


def do(jobs: Sequence[Job], folder: Path, models: Models, pace: Pace, say: Say) -> dict[str, Run]:
    """Every job's run by its key: read where it is done, asked where nobody else is at it, waited for where one is.

    `pace` learns how long they took.

    Raises:
        TruthkitError: as the runs; the message says of which row.
    """
    todo, looks = {job.key: job for job in jobs}, Looks(folder)

    def done(key: str) -> None:
        pace.learn(todo.pop(key).asked, seconds_of(folder / RUNS / key))

    for key in [key for key in todo if finished(folder / RUNS / key)]:
        done(key)
    total = len(todo)
    while todo:
        waiting = True
        for key, job in list(todo.items()):
            if finished(folder / RUNS / key):
                done(key)
                waiting = False
                continue
            if holder(folder / RUNS / key) is not None:
                continue
            ahead = pace.ahead(one.asked for one in todo.values())
            eta = "" if ahead is None else f", about {clock(ahead)} left"
            say(f"run {total - len(todo) + 1} of {total}: {job.of.id}, {job.part}, {job.rows[0]}{eta}")
            if not _ask(job, folder, models, looks):
                continue
            done(key)
            waiting = False
        if todo and waiting:
            say(f"waiting for {len(todo)} run{'s' if len(todo) > 1 else ''} of other processes")
            while not any(finished(folder / RUNS / key) or holder(folder / RUNS / key) is None for key in todo):
                time.sleep(_EVERY)
    return {job.key: read_run(folder / RUNS / job.key) for job in jobs}


def ask(job: Job, folder: Path, models: Models) -> dict[str, Any]:
    """The summary of a job's run in `folder`, whose answers are asked for where they are not there."""
    model, processor, supplied = models.get(job.of.model)
    task, spec = job.of.task(job.part, job.way), job.way.spec
    known = supplied if spec.takes("amateur") else {}
    if spec.takes("seed") and not any("seed" in one.options for one in spec.every):
        known = known | {"seed": job.seed}
    with ExitStack() as steering:
        entered = (
            []
            if job.way.steer is None
            else [steering.enter_context(parse_steer(job.way.steer).build(model, processor))]
        )
        asking = Asking(
            model,
            processor,
            spec,
            known,
            max_new_tokens=job.of.entry.max_new_tokens or task.max_new_tokens,
            sample=job.way.draws,
            temperature=job.way.temperature,
            top_p=job.way.top_p,
            seed=job.seed,
            batch_size=job.of.model.batch_size,
            steerings=[one for one in entered if isinstance(one, Hooked)],
        )
        return run(task, asking, folder, model_name=job.of.model.model, units=job.of.benchmark.units)


def _ask(job: Job, folder: Path, models: Models, looks: Looks) -> bool:
    """Whether the run is done now; not, where another process took it first."""
    try:
        with turn(folder, "looks"):
            looks.add(job.of.id, job.part, job.stage, job.rows, job.key)
        ask(job, folder / RUNS / job.key, models)
    except TruthkitError as error:
        if isinstance(error, NotAvailableError) and (
            holder(folder / RUNS / job.key) is not None or finished(folder / RUNS / job.key)
        ):
            return False
        raise type(error)(f"{job.of.id}, {job.rows[0]}: {error}") from error
    return True


def _amateur(entry: ModelEntry, model: Any, options: dict[str, Any]) -> Any:
    """An adapter's folder or hub id as it is, else a model."""
    name = str(entry.amateur)
    if name in getattr(model, "peft_config", {}) or (Path(name).expanduser() / "adapter_config.json").is_file():
        return name
    return load(name, **options)
