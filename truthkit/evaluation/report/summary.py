"""Sentences that say what a report holds and what its tests found."""

from __future__ import annotations

from truthkit.evaluation.report.baselines import is_unmodified
from truthkit.evaluation.report.contents import Report, Section
from truthkit.evaluation.report.labels import short_models
from truthkit.evaluation.report.words import capital, counted, listed

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
    name = section.scale().metric.title
    sure = [(entry, test) for entry, test in tested if test.holm < _LEVEL]
    bases = {entry.test.against: section.reference(entry) for entry in section.entries if entry.test}
    against = listed(list(bases))
    if all(base is not None and is_unmodified(base.run) for base in bases.values()):
        against += ", the unmodified model" + "s" * (len(bases) > 1)
    are = "was" if len(tested) == 1 else "were"
    at = "at the 5 % level" + (", Holm-corrected" if len(tested) > 1 else "")
    first = f"{counted(len(tested), 'run')} {are} tested against {against}. "
    if not sure:
        return [f"{first}No difference in {name} is more than chance would give ({at})."]
    scale = section.scale()
    changes = [f"{entry.label} ({scale.difference(test.difference.value)})" for entry, test in sure]
    unit = f", in {scale.difference_unit if scale.metric.share else scale.unit}" if scale.unit else ""
    return [f"{first}{capital(name)} differs by more than chance for {listed(changes)}{unit}, {at}."]


def _models(report: Report) -> list[str]:
    names = [str(entry.run.summary["config"]["model"]) for section in report.sections for entry in section.entries]
    return short_models(list(dict.fromkeys(names)))
