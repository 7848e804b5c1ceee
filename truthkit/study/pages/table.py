"""A set's table: heads and cells as plain text, to be written as HTML, Markdown or LaTeX."""

from __future__ import annotations

import math
from dataclasses import dataclass

from truthkit.evaluation.report.words import NOTHING, counted, p_value, seconds
from truthkit.study.pages import words
from truthkit.study.pages.contents import BASELINE, CONTROL, METHOD, NO_EVIDENCE, Against, EvalSet, Row, Study

GROUPS = {BASELINE: "Baseline", METHOD: "Methods", CONTROL: "Controls"}
"""What rows of a role are called, in the order of the table."""


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: what it says.
        span: an interval.
        note: what else is to be known of it, as what a difference is from.
        strong: whether it stands out.
    """

    text: str
    span: str = ""
    note: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Column:
    """A column: its head, and whether a paper's table, which has no room to spare, has it too."""

    head: str
    short: str
    paper: bool = True


def columns(study: Study, one: EvalSet) -> list[Column]:
    """The columns behind the label."""
    scale, p = one.scale, f"p, {words.adjusted(study)}"
    points = f", {unit}" if (unit := words.unit(scale)) else ""
    value = f"{scale.title}\N{NO-BREAK SPACE}{scale.metric.arrow}"
    effects = sorted({row.greedy.effect_name for row in one.compared if row.greedy and row.greedy.effect_name})
    return [
        Column("verdict", "verdict"),
        Column(value, value),
        Column(f"from greedy{points}", f"from greedy{points}"),
        Column(p, "p"),
        Column(f"from its strongest control{points}", f"from control{points}"),
        Column(p, "p"),
        Column(f"effect{', ' + ' or '.join(effects) if effects else ''}", "effect", paper=False),
        Column(f"smallest detectable{points}", "detectable", paper=False),
        Column("p, equivalence", "p, equivalence", paper=False),
        Column("time, of greedy's", "time"),
        Column("time per item", "time per item", paper=False),
    ]


def cells(study: Study, one: EvalSet, row: Row) -> list[Cell]:
    """A row, in the order of `columns`."""
    scale, greedy = one.scale, row.greedy
    return [
        Cell(row.verdict or NOTHING, strong=row.verdict not in ("", NO_EVIDENCE)),
        Cell(scale.value(row.value.value), scale.interval(row.value.interval) if row.value.interval else ""),
        *_comparison(study, one, greedy),
        *_comparison(study, one, row.control, named=True),
        Cell(words.plain(greedy.effect) if greedy else NOTHING),
        _detectable(one, greedy),
        Cell(p_value(greedy.equivalence_p) if greedy else NOTHING),
        Cell(words.times(row.cost)),
        Cell(seconds(row.seconds)),
    ]


def note(study: Study, one: EvalSet) -> str:
    """How the table is to be read."""
    parts = [
        f"Behind each value its {study.interval}.",
        f"Differences are over the same {counted(one.test, 'item')}, p-values two-sided; at most {study.alpha:g} after "
        f"{words.adjusted(study)}'s correction they are in bold.",
        "Detectable is the smallest difference from greedy that 4 of 5 samples of this size show.",
    ]
    return " ".join(parts)


def _detectable(one: EvalSet, against: Against | None) -> Cell:
    if against is None:
        return Cell(NOTHING)
    corrected = against.smallest_corrected
    behind = f"{words.size(one.scale, corrected)} corrected" if math.isfinite(corrected) else ""
    return Cell(words.size(one.scale, against.smallest), note=behind)


def _comparison(study: Study, one: EvalSet, against: Against | None, *, named: bool = False) -> list[Cell]:
    if against is None:
        return [Cell(NOTHING), Cell(NOTHING)]
    shown = one.scale.difference(against.difference.value)
    p = study.corrected(against)
    return [
        Cell(shown, words.span(one.scale, against.difference), f"to {against.label}" if named else ""),
        Cell(p_value(p), strong=p <= study.alpha),
    ]
