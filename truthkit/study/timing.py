"""How long a study would take: counted, and timed on a few development items."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from truthkit.study.conduct import Decided
from truthkit.study.decisions import Decisions
from truthkit.study.running import RUNS, Job, Models, Say, ask, finished, seconds_of
from truthkit.study.sets import StudySet
from truthkit.study.way import GREEDY

_SAMPLE = 4
"""Items that are timed for greedy search in a set, and for each decoder on one set of a kind."""

_BYTES_PER_ITEM = 3000
"""Of a run's folder: record and item, each about as long as a prompt and its answer."""


@dataclass(frozen=True)
class Forecast:
    """What is yet to be done of a set.

    Attributes:
        set: its id.
        rows, runs, items: how many, those of grids on development included.
        seconds: estimated, with the machine as busy as it is.
        cpu_seconds: of the processors, over all threads.
        disk: bytes, estimated.
    """

    set: str
    rows: int
    runs: int
    items: int
    seconds: float
    cpu_seconds: float
    disk: int


class Pace(NamedTuple):
    """Of an item: seconds on the clock, and of the processors."""

    seconds: float
    cpu_seconds: float


def forecast(decided: Decided, folder: Path, say: Say) -> list[Forecast]:
    """What each set would take; finished runs of the study in `folder` count as done.

    Greedy search is timed on a few items of every set; other ways to answer on the first set of the same model, of
    which answers are written or choices scored as here, against greedy search on the same items. Grids not yet
    decided count with their first candidate on test.
    """
    models, costs, found = Models(), dict[tuple[str, bool, str], Pace](), []
    plan = Decisions(folder).plan or {"chosen": {}}
    for one in decided.sets:
        rows = decided.rows(one, plan)
        jobs = [*decided.development(one, plan), *decided.test(one, rows)]
        todo = {job.key: job for job in jobs if not finished(folder / RUNS / job.key)}
        seconds = cpu_seconds = 0.0
        if todo:
            base = next(job for job in jobs if job.way == GREEDY)
            say(f"timing {one.id}")
            with TemporaryDirectory() as place:
                greedy = _timed(base, models, Path(place))
                for job in todo.values():
                    kind = one.model.id, one.written, job.way.decoder if not job.way.options else job.way.label
                    if job.way == GREEDY:
                        costs[kind] = Pace(1.0, 1.0)
                    elif kind not in costs:
                        pace = _timed(job, models, Path(place))
                        costs[kind] = Pace(pace.seconds / greedy.seconds, pace.cpu_seconds / greedy.cpu_seconds)
                    seconds += greedy.seconds * costs[kind].seconds * job.size
                    cpu_seconds += greedy.cpu_seconds * costs[kind].cpu_seconds * job.size
        items = sum(job.size for job in todo.values())
        disk = items * (_BYTES_PER_ITEM + _length(one))
        found.append(Forecast(one.id, len(rows), len(todo), items, seconds, cpu_seconds, disk))
    return found


def _timed(job: Job, models: Models, place: Path) -> Pace:
    """On items of the development part where it has some."""
    part = "development" if job.of.numbers.development else "test"
    some = _few(job.of.chosen(part))
    numbers = {"development": job.of.numbers._replace(development=some), "test": job.of.numbers._replace(test=some)}
    sample = replace(job, part=part, of=replace(job.of, numbers=numbers[part]))
    models.get(job.of.model)
    start, cpu = time.perf_counter(), time.process_time()
    ask(sample, place / sample.key, models)
    busy = (time.process_time() - cpu) / (time.perf_counter() - start)
    seconds = max(seconds_of(place / sample.key), 1e-6) / len(some)
    return Pace(seconds, seconds * busy)


def _few(numbers: Sequence[int]) -> list[int]:
    """Some of the items, from all over."""
    step = max(1, len(numbers) // _SAMPLE)
    return list(numbers[::step][:_SAMPLE])


def _length(one: StudySet) -> int:
    items = [one.whole["test"].items[number] for number in one.numbers.test]
    return 2 * sum(len(item.prompt) + sum(map(len, item.choices)) for item in items) // max(len(items), 1)
