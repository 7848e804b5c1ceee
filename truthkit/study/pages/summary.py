"""What a study found, in sentences that claim no more than its tests do."""

from __future__ import annotations

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

Found = tuple[EvalSet, Row]


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
    controls = {row.method for _, row in _of(study, CONTROL)}
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
    apart = f", {alone} better than greedy without a control to beat" if alone else ""
    methods, sets = len({row.method for _, row in found}), len({one.id for one, _ in found})
    of = f"{counted(len(found), 'result')} of {counted(methods, 'method')} on {counted(sets, 'test set')}"
    return (
        f"{of}: {number[BETTER] - alone} better than greedy and than the strongest control{apart}, {number[WORSE]} worse than "
        f"greedy, {number[EQUIVALENT]} equivalent to greedy, {rest} without evidence either way. {basis(study)}"
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
    found = [pair for pair in _of(study) if only is None or pair[0] is only]
    half = [(one, row) for one, row in found if row.verdict in (NO_EVIDENCE, "") and _beats_greedy(row)]
    unsure = [pair for pair in found if pair[1].verdict in (NO_EVIDENCE, "") and pair not in half]
    controls = [pair for pair in _of(study, CONTROL) if _beats_greedy(pair[1]) and (only is None or pair[0] is only)]

    def having(verdict: str) -> list[Found]:
        return [pair for pair in found if pair[1].verdict == verdict]

    made = [
        ("Better than greedy and than the strongest control", [pair for pair in having(BETTER) if pair[1].control]),
        ("Better than greedy, with no control to beat", [pair for pair in having(BETTER) if not pair[1].control]),
        ("Better than greedy, but not shown to be better than the strongest control", half),
        ("Worse than greedy", having(WORSE)),
        ("Equivalent to greedy", having(EQUIVALENT)),
        ("No evidence either way", unsure),
        ("Controls that are better than greedy themselves", controls),
    ]
    return [
        Group(title, _shortened([_line(study, one, row, many=only is None) for one, row in pairs]))
        for title, pairs in made
        if pairs
    ]


def caveats(study: Study) -> list[str]:
    """What has to be known before the figures are believed."""
    return [sentence for one in study.sets for sentence in _of_set(study, one)]


def looks(study: Study, one: EvalSet) -> str:
    """How often a set's test items were read."""
    read = study.times_read(one)
    if read == 0:
        return "nothing is recorded of when the test items were read"
    days = [look.when for look in study.looks_at(one)]
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
    if alone := [row.label for row in one.of(METHOD) if row.control is None and row.greedy is not None]:
        found.append(
            f"{one.name}: without a control here, and so judged against greedy alone: {listed(_shortened(alone))}."
        )
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


def _line(study: Study, one: EvalSet, row: Row, *, many: bool) -> str:
    name = words.where(study, one, row) if many else row.label
    told = [words.beside(study, one, row.greedy)] if row.greedy else []
    if row.control and row.verdict in (BETTER, NO_EVIDENCE):
        told.append(f"{words.beside(study, one, row.control)}, its strongest control")
    if row.verdict == EQUIVALENT:
        told.append(f"within {words.margin(one)}")
    beside = row.control if _beats_greedy(row) else row.greedy
    if row.verdict == NO_EVIDENCE and beside and (least := words.reach(one, [beside.smallest])):
        told.append(f"{least} or more would have shown in 8 of 10 such samples")
    return f"{name}: {'; '.join(told)}." if told else f"{name}: not compared."


def _beats_greedy(row: Row) -> bool:
    return row.greedy is not None and row.greedy.verdict == BETTER


def _of(study: Study, role: str = METHOD) -> list[Found]:
    return [(one, row) for one in study.sets for row in one.of(role)]


def _shortened(lines: list[str]) -> list[str]:
    rest = len(lines) - _MOST
    return lines if rest <= 1 else [*lines[:_MOST], f"and {rest} more"]
