"""Methods by test sets: differences from greedy, shaded, with what was shown of each."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from truthkit.markup import Markup, element, together
from truthkit.study.pages import words
from truthkit.study.pages.contents import CONTROL, METHOD, EvalSet, Row, Study
from truthkit.study.pages.marks import SIGN, breakable, key, word

_SHADE = 0.75  # of the strongest colour, for the largest difference
_PALE = 0.3  # of that, where chance would give as much
NOT_RUN = "not run"


@dataclass(frozen=True)
class Grid:
    """Methods by sets.

    Attributes:
        names: of the methods and controls, in the study's order, methods first.
        sets: with at least one row that stands beside greedy.
        cells: by name and set, in these orders; None where it was not run.
    """

    names: list[str]
    sets: list[EvalSet]
    cells: list[list[Row | None]]

    def strength(self, study: Study, column: int, row: Row) -> float:
        """From -1 to 1: how much better or worse than greedy, of the largest difference among figures of one kind.

        Percentages are one kind over all sets; what is no percentage is compared within its set. What chance
        would give, and what is not judged, is pale, however large it is.
        """
        scale = self.sets[column].scale
        alike = [
            abs(_change(other))
            for cells in self.cells
            for number, other in enumerate(cells)
            if other is not None
            and (number == column or (scale.metric.share and self.sets[number].scale.metric.share))
            and math.isfinite(_change(other))
        ]
        largest = max(alike, default=0.0)
        change = _change(row) * scale.metric.better
        if not largest or not math.isfinite(change):
            return 0.0
        return change / largest * (1.0 if study.significant(row.greedy) else _PALE)


def grid(study: Study) -> Grid | None:
    """The map of a study; None where nothing stands beside greedy."""
    sets = [one for one in study.sets if one.compared]
    times = Counter((one.id, row.role, row.method) for one in sets for row in one.compared)
    repeated = {(role, method) for (_, role, method), number in times.items() if number > 1}
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for role in (METHOD, CONTROL):
        for one in sets:
            for row in one.compared:
                if row.role == role:
                    name = row.entry or (row.label if (role, row.method) in repeated else row.method)
                    found.setdefault((role, name), {})[one.id] = row
    if not found:
        return None
    return Grid([name for _, name in found], sets, [[of.get(one.id) for one in sets] for of in found.values()])


def text(study: Study, one: EvalSet, row: Row | None) -> tuple[str, str]:
    """What a cell says: the difference with its mark, and the verdict."""
    if row is None or row.greedy is None:
        return "", NOT_RUN
    sign = SIGN if study.significant(row.greedy) else ""
    return f"{one.scale.difference(row.greedy.difference.value)}{sign}", word(row)


def note(study: Study, of: Grid) -> str:
    """How it is to be read."""
    kinds = sorted({words.unit(one.scale) or "the metric's own unit" for one in of.sets})
    return (
        f"Difference from greedy in {' or '.join(kinds)}, shaded blue where better and orange where worse, pale where "
        f"chance would give as much. {SIGN} marks what it would not (p at most {study.alpha:g} after "
        f"{words.adjusted(study)}'s correction); the word beneath is the verdict, which also asks for more than the "
        f"strongest control gives.{_controls(of)}"
    )


def _controls(of: Grid) -> str:
    judged = [row.verdict for cells in of.cells for row in cells if row is not None and row.role == CONTROL]
    return " Controls are pale because they are not judged." if judged and not any(judged) else ""


def heads(of: Grid) -> list[str]:
    """The columns: each set, with an arrow for the better direction."""
    return [
        f"{one.name}, {one.scale.metric.title}\N{NO-BREAK SPACE}{one.scale.metric.arrow}".rstrip() for one in of.sets
    ]


def table(study: Study, of: Grid) -> tuple[Markup, str]:
    """The map, and its note."""
    columns = [element("th", name, scope="col") for name in heads(of)]
    rows = []
    for name, line in zip(of.names, of.cells, strict=True):
        one = next(row for row in line if row is not None)
        head = element("th", key(one.role), breakable(name), element("small", one.role), scope="row")
        rows.append(element("tr", head, *[_cell(study, of, i, row) for i, row in enumerate(line)]))
    first = element("th", "method", scope="col")
    made = element(
        "table", element("thead", element("tr", first, *columns)), element("tbody", *rows), class_="heat-map"
    )
    return made, note(study, of)


def _cell(study: Study, of: Grid, column: int, row: Row | None) -> Markup:
    shown, verdict = text(study, of.sets[column], row)
    if row is None:
        return element("td", element("small", verdict), class_="absent")
    strength = of.strength(study, column, row)
    side = "better" if strength > 0 else "worse" if strength < 0 else None
    style = f"--shade:{100 * _SHADE * abs(strength):.0f}%" if side else None
    strong = element("b", shown) if study.significant(row.greedy) else element("span", shown)
    return element("td", together(strong, element("small", verdict)), class_=side, style=style, title=row.label)


def _change(row: Row) -> float:
    return row.greedy.difference.value if row.greedy else math.nan
