"""Every item on the page, to browse and to filter: radio buttons and a style sheet, no script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from truthkit.evaluation.benchmark import spaced
from truthkit.evaluation.report.contents import Report, Section
from truthkit.evaluation.report.flips import Answer, Asked
from truthkit.evaluation.report.marking import marked, unmarked
from truthkit.evaluation.report.words import counted
from truthkit.markup import Markup, element, together

_MOST_CATEGORIES = 40
_HINT = "Choose what is shown; the browser's own search finds words in it."

Choice = tuple[str, str, int]
"""Of a filter: the class of the rows that it leaves, its label, how many these are."""


def items(section: Section, number: int) -> Markup | None:
    """The section's items, folded; None where it lists none."""
    if not section.items:
        return None
    places = _places(section)
    rows = [_Row(section, asked, places) for asked in section.items]
    judged = any(row.judged for row in rows)
    captions = any(answer.invented for asked in section.items for answer in asked.answers)
    names = ("question", "in the image" if captions else "right answer", "answers")
    head = element("tr", *(element("th", name, scope="col") for name in names))
    body = [element("tr", *_cells(row.asked), class_=" ".join(row.classes) or None) for row in rows]
    whole = len({item["key"] for entry in section.entries for item in entry.run.items})
    some = "" if len(rows) == whole else f" of {whole:,}, flipped ones first"
    return element(
        "details",
        element("summary", element("h3", f"{counted(len(rows), 'item')} to browse{some}")),
        element("p", _HINT + (" Marked words name what is not in the image." if captions else ""), class_="hint"),
        _filter("Answers", f"a{number}", _by_answer(section, rows) if judged else _by_change(rows)),
        _filter("Category", f"k{number}", _by_category(rows, places)),
        element("table", element("thead", head), element("tbody", *body), class_="captions" if captions else None),
        class_="browse",
        id=f"i{number}",
    )


def rules(report: Report) -> str:
    """The style sheet of all filters: a checked button hides the rows that don't have its class."""
    runs = max((len(section.entries) for section in report.sections), default=0)
    known = max((len(_places(section)) for section in report.sections), default=0)
    names = [*_ALWAYS, *(f"w{i}" for i in range(runs)), *(f"k{i}" for i in range(known))]
    return "".join(f".browse:has(.on-{name}:checked) tbody tr:not(.{name}){{display:none}}\n" for name in names)


_ALWAYS = ("flip", "right", "wrong")


class _Row:
    """An item and the classes that it is filtered by."""

    def __init__(self, section: Section, asked: Asked, places: dict[str, int]):
        self.asked = asked
        by_label = {label: answer.correct for answer in asked.answers for label in answer.labels}
        known = [correct for correct in by_label.values() if correct is not None]
        self.judged = bool(known)
        self.classes = ["flip"] if asked.flipped else []
        if known and not asked.flipped:
            self.classes.append("right" if known[0] else "wrong")
        self.classes += [f"w{i}" for i, entry in enumerate(section.entries) if by_label.get(entry.label) is False]
        if asked.category in places:
            self.classes.append(f"k{places[asked.category]}")


def _places(section: Section) -> dict[str, int]:
    """The categories by number; none if there are not two, or more than anyone looks through."""
    names = list(dict.fromkeys(asked.category for asked in section.items if asked.category))
    return {name: at for at, name in enumerate(names)} if 1 < len(names) <= _MOST_CATEGORIES else {}


def _count(rows: Sequence[_Row], name: str) -> int:
    return sum(name in row.classes for row in rows)


def _by_change(rows: Sequence[_Row]) -> list[Choice]:
    count = _count(rows, "flip")
    return [("flip", "differ between runs", count)] if count else []


def _by_answer(section: Section, rows: Sequence[_Row]) -> list[Choice]:
    if len(section.entries) == 1:
        return [(name, name, _count(rows, name)) for name in ("right", "wrong")]
    several = [("flip", "flipped between runs"), ("right", "right in all"), ("wrong", "wrong in all")]
    several += [(f"w{i}", f"wrong in {entry.label}") for i, entry in enumerate(section.entries)]
    return [(name, label, _count(rows, name)) for name, label in several]


def _by_category(rows: Sequence[_Row], places: dict[str, int]) -> list[Choice]:
    return [(f"k{at}", spaced(name), _count(rows, f"k{at}")) for name, at in places.items()]


def _filter(title: str, group: str, choices: Iterable[Choice]) -> Markup | None:
    """Radio buttons, the first of which leaves all."""
    buttons = [
        element(
            "label",
            element("input", type="radio", name=group, class_=f"on-{name}"),
            element("span", f"{label} ", element("small", f"{count:,}")),
        )
        for name, label, count in choices
    ]
    if not buttons:
        return None
    every = element("label", element("input", type="radio", name=group, checked=True), element("span", "all"))
    return element("fieldset", element("legend", title), every, *buttons)


def _cells(asked: Asked) -> tuple[Markup, Markup, Markup]:
    about = " · ".join(filter(None, (spaced(asked.category), *(path.name for path in asked.images))))
    return (
        element("td", element("p", asked.question, dir="auto"), element("small", about) if about else None),
        element("td", asked.truth, dir="auto"),
        element("td", *map(_answer, asked.answers)),
    )


def _answer(answer: Answer) -> Markup:
    judged = None if answer.correct is None else "yes" if answer.correct else "no"
    note = answer.note
    if answer.invented and (others := unmarked(answer.text, answer.invented)) != list(answer.invented):
        note = f"not in the image either: {', '.join(others)}" if others else ""
    about = " · ".join(answer.labels) + (f"; {note}" if note else "")
    said = together(marked(answer.text or "(nothing)", answer.invented), " ", element("small", about))
    return element("p", said, class_=judged, dir="auto")
