"""A study as Markdown: what it found, a table for each set, and how the figures were made."""

from __future__ import annotations

import truthkit
from truthkit.evaluation.report.markdown import escaped, table
from truthkit.evaluation.report.words import capital
from truthkit.study.pages import provenance, summary, words
from truthkit.study.pages.contents import EvalSet, Study
from truthkit.study.pages.table import GROUPS, Cell, cells, columns, note


def markdown(study: Study) -> str:
    """The whole document."""
    parts = [f"# {escaped(study.name)}", escaped(summary.about(study)), escaped(study.note)]
    parts += [f"> **Note:** {escaped(text)}" for text in summary.caveats(study)]
    parts += [escaped(summary.overall(study)), *_found(study)]
    for one in study.sets:
        parts += _set(study, one)
    said, command = provenance.repeat(study)
    parts += ["## How to read this", *map(escaped, provenance.how_to_read(study))]
    parts += ["## How to repeat it", escaped(said), f"Command: {escaped(command)}"]
    parts += ["## Where it comes from", _facts(provenance.origin(study)), f"Made with truthkit {truthkit.__version__}."]
    return "\n\n".join(filter(None, parts)) + "\n"


def _found(study: Study) -> list[str]:
    parts = []
    for group in summary.groups(study):
        parts += [f"**{escaped(group.title)}**", "\n".join(f"- {escaped(line)}" for line in group.lines)]
    return parts


def _set(study: Study, one: EvalSet) -> list[str]:
    parts = [f"## {escaped(one.name)}", escaped(words.about(one)), escaped(f"{capital(summary.looks(study, one))}.")]
    lines = [
        [row.label, GROUPS[row.role].lower().removesuffix("s"), *map(_cell, cells(study, one, row))] for row in one.rows
    ]
    parts.append(table(["decoder", "role", *[column.head for column in columns(study, one)]], lines))
    return [*parts, escaped(note(study, one))]


def _cell(cell: Cell) -> str:
    behind = "; ".join(filter(None, (cell.span, cell.note)))
    return f"{cell.text} ({behind})" if behind else cell.text


def _facts(known: dict[str, str]) -> str:
    return "\n".join(f"- {escaped(name)}: {escaped(text)}" for name, text in known.items())
