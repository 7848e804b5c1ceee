"""What a study found, in sentences that claim no more than its tests do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from truthkit.evaluation.report.labels import short_models
from truthkit.evaluation.report.words import counted, listed
from truthkit.study.pages import words
from truthkit.study.pages.contents import (
    BETTER,
    CONTROL,
    EQUIVALENT,
    METHOD,
    NO_EVIDENCE,
    WORSE,
    EvalSet,
    Row,
    Study,
)

_MOST = 12  # lines of a group
_FEW = 30  # clusters, below which a bootstrap is not to be relied on

_Told = Callable[[Study, EvalSet, Sequence[Row], bool], list[str]]
"""How rows of one kind and one set are told, with the set's name or without."""


@dataclass(frozen=True)
class Group:
    """Results of one kind: what they are called, and each in a sentence."""

    title: str
    lines: list[str]


def about(study: Study) -> str:
    """How much there is."""
    models = short_models(list(dict.fromkeys(one.model for one in study.sets)))
    parts = [listed(models) if 0 < len(models) <= 3 else counted(len(models), "model")]
    parts += [counted(len(study.sets), "test set"), counted(len({row.method for _, row in _of(study)}), "method")]
    controls = {row.label for _, row in _of(study, CONTROL)}
    parts += [counted(len(controls), "control")] if controls else []
    parts.append(counted(sum(one.test for one in study.sets), "test item"))
    return " · ".join(parts)


def overall(study: Study) -> str:
    """All verdicts, counted."""
    found = _of(study)
    if not found:
        return "No method was compared; what there is are baselines and controls."
    number = {name: sum(row.verdict == name for _, row in found) for name in (BETTER, WORSE, EQUIVALENT)}
    rest = len(found) - sum(number.values())
    alone = sum(row.verdict == BETTER and row.control is None for _, row in found)
    apart = f", {alone} better than greedy, the only control there is" if alone else ""
    methods, sets = len({row.method for _, row in found}), len({one.id for one, _ in found})
    of = f"{counted(len(found), 'result')} of {counted(methods, 'method')} on {counted(sets, 'test set')}"
    return (
        f"{of}: {number[BETTER] - alone} better than greedy and than the strongest control{apart}, {number[WORSE]} "
        f"worse than greedy, {number[EQUIVALENT]} equivalent to greedy, {rest} without "
        f"evidence either way. {basis(study)}"
    )


def basis(study: Study) -> str:
    """What verdicts go by."""
    if study.family < 2:
        return f"Tested at the {words.percent(study.alpha)} level; a single test needs no correction."
    return (
        f"Tested at the {words.percent(study.alpha)} level after {words.adjusted(study)}'s correction for "
        f"{counted(study.family, 'comparison')}."
    )


def groups(study: Study, only: EvalSet | None = None) -> list[Group]:
    """The verdicts, the ones that claim most first; of one set, or of all."""
    sets = [one for one in study.sets if only is None or one is only]
    found = []
    for title, fits, told in _KINDS:
        rows = [(one, [row for row in one.rows if fits(row)]) for one in sets]
        if lines := [line for one, some in rows if some for line in told(study, one, some, len(sets) > 1)]:
            found.append(Group(title, _cut(lines)))
    return found


def caveats(study: Study) -> list[str]:
    """What has to be known before the figures are believed."""
    found = [sentence for one in study.sets for sentence in _of_set(study, one)]
    alone = {(row.method, one.name) for one, row in _of(study) if row.control is None and row.greedy is not None}
    if alone:
        methods, sets = sorted({method for method, _ in alone}), {name for _, name in alone}
        where = "" if len(study.sets) == 1 else f" on {listed([one.name for one in study.sets if one.name in sets])}"
        found.append(f"Held against greedy alone{where}, for want of another control: {listed(_shortened(methods))}.")
    if unjudged := [
        words.where(one, row) if len(study.sets) > 1 else row.label for one, row in _of(study) if not row.verdict
    ]:
        found.append(f"Without a verdict: {listed(_shortened(unjudged))}.")
    return found


def looks(study: Study, one: EvalSet) -> str:
    """How often a set's test items were read."""
    read = study.times_read(one)
    if read == 0:
        return "nothing is recorded of when the test items were read"
    days = [words.when(look.when) for look in study.looks_at(one)]
    dates = f" ({listed(days)})" if 0 < len(days) <= 4 else ""
    return f"the test items were read {'once' if read == 1 else 'twice' if read == 2 else f'{read} times'}{dates}"


def _of_set(study: Study, one: EvalSet) -> list[str]:
    found = []
    if study.times_read(one) > 1:
        late = [row.label for row in one.rows if row.looks > 1]
        which = f" This concerns {listed(_shortened(late))}." if late else ""
        found.append(
            f"{one.name}: {looks(study, one)}. Whoever added or changed something after the first reading could know "
            f"its results, which no correction allows for.{which}"
        )
    if differing := [row.label for row in one.rows if row.items != one.test]:
        found.append(
            f"{one.name}: not all of the {counted(one.test, 'test item')} are in the figures of "
            f"{listed(_shortened(differing))}."
        )
    if one.clusters < _FEW:
        found.append(f"{one.name}: {words.items(one)} are few; intervals and p-values of so few are rough.")
    if weak := [row for row in one.rows if row.label == "greedy" and _at_chance(one, row)]:
        shown, unit = one.scale.interval(weak[0].value.interval), one.scale.unit  # type: ignore[arg-type]
        found.append(
            f"{one.name}: greedy's own interval, {shown} {unit}".rstrip()
            + f", contains {words.chance(one)}: the model hardly does this task, and differences say little."
        )
    return found


def _at_chance(one: EvalSet, row: Row) -> bool:
    interval = row.value.interval
    return interval is not None and interval.low <= one.chance <= interval.high


def _each(study: Study, one: EvalSet, rows: Sequence[Row], many: bool) -> list[str]:
    """A line for each row, with all that is known of it."""
    lines = []
    for row in rows:
        told = [words.beside(study, one, row.greedy)] if row.greedy else []
        if row.control and row.verdict in (BETTER, NO_EVIDENCE):
            told.append(f"{words.beside(study, one, row.control)}, its strongest control")
        if row.control and row.verdict == NO_EVIDENCE and (least := words.detectable(one, [row.control])):
            told.append(least)
        lines.append(f"{words.where(one, row) if many else row.label}: {'; '.join(told)}.")
    return lines


def _together(study: Study, one: EvalSet, rows: Sequence[Row], many: bool) -> list[str]:
    """A line for a set's rows, with their differences."""
    changes = [(row.label, row.greedy.difference.value) for row in rows if row.greedy]
    names = listed(_shortened([f"{label} ({one.scale.difference(change)})" for label, change in changes]))
    line = f"{one.name}: {names}" if many else names
    if rows[0].verdict == EQUIVALENT:
        return [f"{line}; the margin is {words.margin(one)}."]
    least = words.detectable(one, [row.greedy for row in rows if row.greedy])
    return [f"{line}; {least}." if least else f"{line}."]


def _beats_greedy(row: Row) -> bool:
    return row.greedy is not None and row.greedy.verdict == BETTER


def _judged(verdict: str) -> Callable[[Row], bool]:
    return lambda row: row.role == METHOD and row.greedy is not None and row.verdict == verdict


def _unsure(row: Row) -> bool:
    return _judged(NO_EVIDENCE)(row) and not _beats_greedy(row)


_KINDS: tuple[tuple[str, Callable[[Row], bool], _Told], ...] = (
    (
        "Better than greedy and than the strongest control",
        lambda row: _judged(BETTER)(row) and row.control is not None,
        _each,
    ),
    ("Better than greedy, the only control there is", lambda row: _judged(BETTER)(row) and row.control is None, _each),
    (
        "Better than greedy, but not shown to be better than the strongest control",
        lambda row: _judged(NO_EVIDENCE)(row) and _beats_greedy(row),
        _each,
    ),
    ("Worse than greedy", _judged(WORSE), _each),
    ("Equivalent to greedy", _judged(EQUIVALENT), _together),
    ("No evidence either way", _unsure, _together),
)
"""Kinds of results: what they are called, which rows are of one, and how they are told."""


def _of(study: Study, role: str = METHOD) -> list[tuple[EvalSet, Row]]:
    return [(one, row) for one in study.sets for row in one.of(role)]


def _shortened(names: list[str]) -> list[str]:
    """Names to be listed, the last ones counted where they are many."""
    rest = len(names) - _MOST
    return names if rest <= 1 else [*names[:_MOST], f"{rest} more"]


def _cut(lines: list[str]) -> list[str]:
    """Lines, the last ones counted where they are many."""
    rest = len(lines) - _MOST
    return lines if rest <= 1 else [*lines[:_MOST], f"And {rest} more, in the tables."]
