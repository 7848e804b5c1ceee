r"""A study as LaTeX: a table for each set, to be had with `\input` in a document that has `\usepackage{booktabs}`."""

from __future__ import annotations

import re
import unicodedata

import truthkit
from truthkit.evaluation.report.words import capital, counted
from truthkit.printable import printable
from truthkit.study.pages import summary, words
from truthkit.study.pages.contents import METHOD, EvalSet, Row, Study
from truthkit.study.pages.table import GROUPS, Cell, cells, columns

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "·": r"$\cdot$",
    "–": "--",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "λ": r"$\lambda$",
    "[": "{[}",
    "]": "{]}",
}
_WIDE, _WIDTH = 24, r"0.24\linewidth"  # characters of a label; of a column of longer ones


def escaped(text: str) -> str:
    """Any text on one line, in which nothing is a command; accents are lost, other alphabets become ?."""
    return "".join(map(_character, " ".join(printable(text).split())))


def latex(study: Study) -> str:
    """All tables, with what they need said in comments."""
    head = [
        f"% {_comment(study.name)}: made by truthkit {truthkit.__version__} from study.json.",
        r"% Needs \usepackage{booktabs}. Lines are about 450 pt wide, and no table goes on over a second page.",
    ]
    return "\n".join([*head, *(_table(study, one) for one in study.sets)]) + "\n"


def _table(study: Study, one: EvalSet) -> str:
    kept = [number for number, column in enumerate(columns(study, one)) if column.paper]
    heads = [columns(study, one)[number].short for number in kept]
    first = "l" if max((len(row.label) for row in one.rows), default=0) <= _WIDE else rf"p{{{_WIDTH}}}"
    lines = [
        r"\begin{table*}[tp]",
        r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{_caption(study, one)}}}",
        rf"\label{{tab:{re.sub(r'[^a-zA-Z0-9]+', '-', one.id).strip('-')}}}",
        rf"\begin{{tabular}}{{@{{}}{first}l{'r' * (len(kept) - 1)}@{{}}}}",
        r"\toprule",
        rf"decoder & {' & '.join(map(escaped, heads))} \\",
    ]
    for role, name in GROUPS.items():
        if rows := one.of(role):
            lines += [r"\midrule", rf"\multicolumn{{{len(kept) + 1}}}{{@{{}}l}}{{\emph{{{name}}}}} \\"]
            lines += [_row(study, one, row, kept) for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table*}"])


def _label(row: Row) -> str:
    """A long one may go on in another line behind its options."""
    if len(row.label) <= _WIDE:
        return escaped(row.label)
    pieces = re.split(r"(?<=[,:+/])(?=\S)", row.label)
    return r"\raggedright " + r"\allowbreak{}".join(map(escaped, pieces))


def _row(study: Study, one: EvalSet, row: Row, kept: list[int]) -> str:
    found = cells(study, one, row)
    return rf"{_label(row)} & {' & '.join(_cell(found[number]) for number in kept)} \\"


def _cell(cell: Cell) -> str:
    text = rf"\textbf{{{escaped(cell.text)}}}" if cell.strong else escaped(cell.text)
    return rf"{text} {{\tiny({escaped(cell.span)})}}" if cell.span else text


def _caption(study: Study, one: EvalSet) -> str:
    least = words.detectable(one, [row.greedy for row in one.of(METHOD) if row.greedy])
    parts = [
        f"{one.name}. {words.about(one)}",
        f"In brackets {study.interval}s; in bold p at most {study.alpha:g} after {words.adjusted(study)}'s correction "
        f"for {counted(study.family, 'comparison')}, and verdicts other than no evidence.",
        f"{capital(least)}." if least else "",
        f"{capital(summary.looks(study, one))}.",
    ]
    return escaped(" ".join(filter(None, parts)))


def _character(character: str) -> str:
    if (known := _SPECIAL.get(character)) is not None:
        return known
    if ord(character) < 128:
        return character
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "".join(_SPECIAL.get(one, one) for one in plain) or "?"


def _comment(text: str) -> str:
    return " ".join(printable(text).split())
