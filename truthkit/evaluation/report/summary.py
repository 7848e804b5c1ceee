"""Sentences that say what a report holds and what its tests found."""

from __future__ import annotations

from truthkit.evaluation.report.contents import Report, Section
from truthkit.evaluation.report.labels import short_model
from truthkit.evaluation.report.words import counted, listed, metric_title

_LEVEL = 0.05


def title(report: Report) -> str:
    """The tasks and the models."""
    tasks = list(dict.fromkeys(section.title for section in report.sections))
    models = _models(report)
    shown = listed(models) if len(models) <= 2 else counted(len(models), "model")
    return f"{listed(tasks)} with {shown}"


def about(report: Report) -> str:
    """How much there is."""
    items = {section.title: max(len(entry.run.items) for entry in section.entries) for section in report.sections}
    parts = [counted(report.runs, "run"), *(f"{counted(n, 'item')} of {name}" for name, n in items.items() if n)]
    return " · ".join(parts)


def findings(section: Section) -> list[str]:
    """What the tests say, in one or two sentences."""
    tested = [(entry, entry.test) for entry in section.entries if entry.test is not None]
    if not tested:
        return []
    name = metric_title(section.headline)
    sure = [(entry, test) for entry, test in tested if test.holm < _LEVEL]
    corrected = ", corrected for their number after Holm" if len(tested) > 1 else ""
    against = listed(list(dict.fromkeys(test.against for _, test in tested)))
    first = f"{counted(len(tested), 'run')} tested against {against} at the 5 % level{corrected}: "
    if not sure:
        return [f"{first}no difference in {name} is more than chance would give."]
    unit = " points" if section.scale.shares else ""
    changes = [f"{entry.label} {section.scale.difference(test.difference.value)}{unit}" for entry, test in sure]
    rest = f" {_rest(len(tested) - len(sure))}" if len(sure) < len(tested) else ""
    return [f"{first}{name} differs for {listed(changes)}.{rest}"]


def _rest(number: int) -> str:
    return "The other one does not." if number == 1 else f"The other {number} do not."


def _models(report: Report) -> list[str]:
    names = (entry.run.summary["config"]["model"] for section in report.sections for entry in section.entries)
    return [short_model(str(name)) for name in dict.fromkeys(names)]
