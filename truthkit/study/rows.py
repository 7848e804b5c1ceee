"""The rows of a set: greedy search, the methods as they were chosen, and the controls of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from truthkit.study.entries import MethodEntry
from truthkit.study.sets import StudySet
from truthkit.study.way import GREEDY, Way, written


@dataclass(frozen=True)
class Row:
    """One row of a set.

    Attributes:
        label: unique in its set.
        way: how items are answered.
        role: "baseline", "method" or "control".
        entry: the id of the method that it is of, the same in every set; a control's label.
        stage: in which it was decided.
        control_of: labels of the methods that name it as a control.
        chosen_from: the candidates with what they came to on development.
    """

    label: str
    way: Way
    role: str
    entry: str
    stage: int = 1
    control_of: tuple[str, ...] = ()
    chosen_from: tuple[Mapping[str, Any], ...] = ()


def rows_of(
    one: StudySet,
    methods: Sequence[tuple[MethodEntry, int]],
    chosen: Mapping[str, Mapping[str, Any]],
) -> list[Row]:
    """Greedy search, every method's chosen way, and every control once.

    A control that is a method's row already, or greedy search, has no second row. Where methods differ in an option of
    the task, a detector for one, the baseline is called by what that is by default.

    Args:
        one: the set.
        methods: those that are for it, each with its stage.
        chosen: by method: `place` among its candidates, and `from`, their development figures.
    """
    varied = dict.fromkeys(name for method, _ in methods for way in method.candidates for name, _ in way.options)
    usual = ", ".join(written(name, one.benchmark.options[name].default) for name in varied)
    rows = {GREEDY: Row(usual or "greedy", GREEDY, "baseline", "greedy")}
    for method, stage in methods:
        choice = chosen.get(method.id, {"place": 0, "from": []})
        way = method.candidates[choice["place"]]
        if way not in rows:
            label = _free(method.id if len(method.candidates) == 1 else way.label, rows)
            rows[way] = Row(label, way, "method", method.id, stage, (), tuple(choice["from"]))
    for row in [row for row in rows.values() if row.role == "method"]:
        for way in row.way.controls():
            if way == row.way or (way.draws and not one.written):
                continue
            known = rows.get(way) or Row(_free(way.label, rows), way, "control", way.label, row.stage)
            stage = min(known.stage, row.stage) if known.role == "control" else known.stage
            rows[way] = replace(known, control_of=(*known.control_of, row.label), stage=stage)
    return list(rows.values())


def _free(label: str, rows: Mapping[Way, Row]) -> str:
    """The label, with a number where a row has it already."""
    taken = {row.label for row in rows.values()}
    return next(one for one in (label, *(f"{label} ({n})" for n in range(2, len(taken) + 3))) if one not in taken)
