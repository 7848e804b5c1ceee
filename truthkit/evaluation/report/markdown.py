"""A report as Markdown, as GitHub and most others read it: tables, caveats, flipped items, provenance."""

from __future__ import annotations

import re
from collections.abc import Sequence

import truthkit
from truthkit.evaluation.benchmark import spaced
from truthkit.evaluation.report.contents import Entry, Estimate, Report, Section
from truthkit.evaluation.report.flips import Asked
from truthkit.evaluation.report.marking import pieces
from truthkit.evaluation.report.provenance import facts, notes
from truthkit.evaluation.report.summary import about, findings, title
from truthkit.evaluation.report.words import NOTHING, YES, Scale, capital, p_value, seconds
from truthkit.printable import printable

_SPECIAL = re.compile(r"[\\`*_\[\]<>|~&$]|(?<=:)//|(?<=www)\.")


def escaped(text: str) -> str:
    """Any text on one line, in which nothing is Markdown, HTML or a link; to stand behind other text."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(printable(text).split()))


def markdown(report: Report) -> str:
    """The whole document."""
    parts = [f"# {escaped(title(report))}", escaped(about(report))]
    parts += [_quoted(note) for note in report.notes]
    for section in report.sections:
        parts += _section(section)
    parts += ["## How to read this", *map(escaped, notes(report)), "## Where it comes from"]
    for section in report.sections:
        common, own = facts(section)
        parts.append(f"### {escaped(section.title)}")
        parts.append("\n".join(f"- {escaped(name)}: {escaped(value)}" for name, value in common.items()))
        if names := list(dict.fromkeys(name for of in own.values() for name in of)):
            parts.append(table(["", *own], [[name, *(of.get(name, NOTHING) for of in own.values())] for name in names]))
    parts.append(f"Made with truthkit {truthkit.__version__}.")
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    name, unit = section.scale().metric.title, section.scale().unit and f", {section.scale().unit}"
    parts = [f"## {escaped(section.title)}", *map(_quoted, section.caveats), *map(escaped, findings(section))]
    parts += ["### Every metric", _metrics(section)]
    if section.tested:
        parts += [f"### Against the baseline{', in ' + section.scale().difference_unit}", _tests(section)]
    if section.categories:
        parts += [f"### {escaped(capital(name))} by category{unit}", _categories(section)]
    if section.yes_labels is not None:
        parts += ["### How often it says yes, %", _yes(section, section.yes_labels)]
    if section.flips:
        parts += [f"### Answers that flipped: {len(section.flips)} of {section.flipped}", *map(_flip, section.flips)]
    return parts


def _metrics(section: Section) -> str:
    scales = {name: section.scale(name) for name in section.metrics}
    heads = [scale.title + f" {scale.metric.arrow}".rstrip() for scale in scales.values()]
    rows = [
        [entry.label, *(_estimate(scale, entry.metrics.get(name)) for name, scale in scales.items()), _cost(entry)]
        for entry in section.entries
    ]
    rows += _chance_row([(scale, section.chance(name)) for name, scale in scales.items()], more=True)
    return table(["run", *heads, "time per item"], rows)


def _tests(section: Section) -> str:
    heads = ["run", "against", f"difference in {section.scale().metric.title}", "p", "p, Holm"]
    heads += ["newly right", "newly wrong", "p, McNemar"]
    shown, rows = section.scale().difference, []
    for entry in section.entries:
        if (test := entry.test) is None:
            continue
        change, answers = test.difference, test.comparison.answers
        flips = [str(answers.gained), str(answers.lost), p_value(answers.p)] if answers else [NOTHING] * 3
        span = f"{shown(change.value)} ({shown(change.low)} to {shown(change.high)})"
        rows.append([entry.label, test.against, span, p_value(change.p), p_value(test.holm), *flips])
    return table(heads, rows)


def _categories(section: Section) -> str:
    rows = [
        [entry.label, *(_estimate(section.scale(), entry.categories.get(name)) for name in section.categories)]
        for entry in section.entries
    ]
    rows += _chance_row([(section.scale(), section.chance_in(name)) for name in section.categories])
    return table(["run", *map(spaced, section.categories)], rows)


def _yes(section: Section, labels: Estimate) -> str:
    known = [(entry.label, entry.yes) for entry in section.entries if entry.yes is not None]
    rows = [[label, _estimate(YES, yes)] for label, yes in known]
    return table(["run", "answers"], [*rows, ["right answers", YES.value(labels.value)]])


def _flip(flip: Asked) -> str:
    lines = [f"**{escaped(flip.question)}**"]
    if flip.truth:
        lines.append(f"right: {escaped(flip.truth)}")
    lines += [f"image: {escaped(path.name)}" for path in flip.images]
    for answer in flip.answers:
        note = f" ({escaped(answer.note)})" if answer.note else ""
        said = _said(answer.text, answer.invented)
        lines.append(f"{'✓' if answer.correct else '✗'} {said}{note} *{escaped(' · '.join(answer.labels))}*")
    return f"- {lines[0]}\n" + "\n".join(f"  - {line}" for line in lines[1:])


def _said(text: str, invented: Sequence[str]) -> str:
    """An answer on one line, words that name what is not in the image in bold."""
    found = [(" ".join(printable(piece).split()), piece, mark) for piece, mark in pieces(text, invented)]
    parts = [
        f"**{escaped(flat)}**" if mark else f"{' ' * piece[:1].isspace()}{escaped(flat)}{' ' * piece[-1:].isspace()}"
        for flat, piece, mark in found
    ]
    return "".join(parts).strip() or "(nothing)"


def _chance_row(levels: Sequence[tuple[Scale, float | None]], *, more: bool = False) -> list[list[str]]:
    """What guessing scores; nothing where it is known of no column."""
    if all(level is None for _, level in levels):
        return []
    return [
        ["chance", *(NOTHING if level is None else scale.value(level) for scale, level in levels)] + [NOTHING] * more
    ]


def _estimate(scale: Scale, estimate: Estimate | None) -> str:
    if estimate is None:
        return NOTHING
    value = scale.value(estimate.value)
    return f"{value} ({scale.interval(estimate.interval)})" if estimate.interval else value


def _cost(entry: Entry) -> str:
    return seconds(entry.cost.value) if entry.cost else NOTHING


def _quoted(text: str) -> str:
    return f"> **Note:** {escaped(text)}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of any texts; the first column to the left, the others to the right."""
    first, *others = [f"| {' | '.join(map(escaped, line))} |" for line in (heads, *rows)]
    return "\n".join([first, f"| --- |{' ---: |' * (len(heads) - 1)}", *others])
