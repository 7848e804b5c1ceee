"""A study from its file to its results: decided, chosen on development, asked on test, compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError
from truthkit.evaluation.report.compare import Run
from truthkit.files.lock import turn
from truthkit.files.writing import file_sha256, write_atomically
from truthkit.steering.spec import parse_steer
from truthkit.study.decisions import Decisions, Looks
from truthkit.study.entries import MethodEntry, Study
from truthkit.study.pace import Pace
from truthkit.study.places import Places
from truthkit.study.reading import read_study
from truthkit.study.results import Measured, results
from truthkit.study.rows import Row, rows_of
from truthkit.study.running import Job, Models, Say, do
from truthkit.study.sets import StudySet, sets_of

STUDY = "study.json"


@dataclass(frozen=True)
class Decided:
    """A study whose file was taken: nothing was run for it yet.

    Attributes:
        study: all that was decided, amendments included.
        sets: of it.
        methods: for each set, by its id, the methods with their stages.
        stages: of the sets.
    """

    study: Study
    sets: list[StudySet]
    methods: dict[str, list[tuple[MethodEntry, int]]]
    stages: dict[str, int]

    def rows(self, one: StudySet, plan: Mapping[str, Any]) -> list[Row]:
        """The rows of a set, after its grids were decided."""
        return rows_of(one, self.methods[one.id], plan["chosen"].get(one.id, {}))

    def development(self, one: StudySet, plan: Mapping[str, Any]) -> list[Job]:
        """The runs on which a set's grids are yet to be decided."""
        chosen = plan["chosen"].get(one.id, {})
        return [
            Job(one, "development", way, seed, (way.label,), stage)
            for method, stage in self.methods[one.id]
            if len(method.candidates) > 1 and method.id not in chosen
            for way in method.candidates
            for seed in one.seeds(way)
        ]

    def test(self, one: StudySet, rows: Sequence[Row]) -> list[Job]:
        """The runs of a set's rows."""
        stage = self.stages[one.id]
        return [
            Job(one, "test", row.way, seed, (row.label,), max(row.stage, stage))
            for row in rows
            for seed in one.seeds(row.way)
        ]


def decide(file: Path, folder: Path, variables: Mapping[str, str], *, amend: bool = False) -> Decided:
    """Take a study's file: split its data, and put down in `folder` all that it decides.

    Raises:
        ArgumentError, NotAvailableError: as `read_study`, `sets_of` and `Decisions.take`.
    """
    with turn(folder):
        decisions = Decisions(folder)
        study = decisions.take(file, variables, amend=amend)
        sets = sets_of(study)
        for one in sets:
            about = {f"{part}_sha256": hashed for part, hashed in one.hashes.items()}
            decisions.agree(one.id, about | {"data_sha256": one.data_sha256})
        for method in study.methods:
            if steered := {way.steered: way.steer for way in method.candidates if way.steer is not None}:
                files = {str(name): file_sha256(parse_steer(text).path) for name, text in steered.items()}
                decisions.agree(f"method {method.id}", files)
        found = _decided(study, sets, decisions)
        decisions.save()
    return found


def look_at(file: Path, variables: Mapping[str, str]) -> Decided:
    """The same of a study that is only planned: nothing is put down."""
    study = read_study(file, Places(file.parent, variables))
    return _decided(study, sets_of(study), None)


def conduct(decided: Decided, folder: Path, say: Say, command: str) -> dict[str, Any]:
    """Run what was decided and has not run yet, and write `study.json`; returns it."""
    models, pace = Models(), Pace()
    decisions = Decisions(folder)
    jobs = [job for one in decided.sets for job in decided.development(one, decisions.plan)]
    found = do(jobs, folder, models, pace, say)
    with turn(folder):
        decisions = Decisions(folder)  # what another process may have chosen meanwhile, from the same runs
        for one in decided.sets:
            into = decisions.plan["chosen"].setdefault(one.id, {})
            for method, _ in decided.methods[one.id]:
                if len(method.candidates) > 1 and method.id not in into:
                    into[method.id] = choose(one, method, found)
        decisions.save()
    rows = {one.id: decided.rows(one, decisions.plan) for one in decided.sets}
    jobs = [job for one in decided.sets for job in decided.test(one, rows[one.id])]
    found = do(jobs, folder, models, pace, say)
    say("comparing")
    measured = [
        Measured(one, row, [found[one.key("test", row.way, seed)] for seed in one.seeds(row.way)])
        for one in decided.sets
        for row in rows[one.id]
    ]
    made = results(decided.study, measured, Looks(folder), decided.stages, command)
    with turn(folder):
        write_atomically(folder / STUDY, made)
    return made


def choose(one: StudySet, method: MethodEntry, found: Mapping[str, Run]) -> dict[str, Any]:
    """Which candidate of a grid does best on development by the task's headline; ties go to the first in the file."""
    metric, figures, best = one.metric, list[dict[str, Any]](), list[float]()
    for way in method.candidates:
        summaries = [found[one.key("development", way, seed)].summary for seed in one.seeds(way)]
        values = [float(summary["metrics"][metric.name]) for summary in summaries]
        value = sum(values) / len(values)
        n = int(summaries[0]["n"][metric.name])
        figures.append({"decoder": way.label, "value": value, "n": n})
        best.append(-math.inf if math.isnan(value) else metric.better * value)
    return {"place": best.index(max(best)), "from": figures}


def _decided(study: Study, sets: list[StudySet], decisions: Decisions | None) -> Decided:
    methods: dict[str, list[tuple[MethodEntry, int]]] = {}
    stages = {}
    for one in sets:
        of_set = ("task", one.entry.id), ("model", one.model.id)
        stages[one.id] = decisions.stage(*of_set) if decisions else 1
        methods[one.id] = [
            (method, decisions.stage(("method", method.id), *of_set) if decisions else 1)
            for method in study.methods
            if method.is_for(one.entry.id, one.model.id)
        ]
        for method, _ in methods[one.id]:
            one.check(method)
    used = {method.id for found in methods.values() for method, _ in found}
    if idle := [method.id for method in study.methods if method.id not in used]:
        raise ArgumentError(f"{study.path}: no set is both of the tasks and of the models that {idle[0]!r} is for.")
    return Decided(study, sets, methods, stages)
