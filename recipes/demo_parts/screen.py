"""What every part of the demo prints alike: its heading, its words, its figures, and what to make of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from truthkit.output import Output
from truthkit.statistics.intervals import mcnemar

RIGHT, WRONG = "✓", "✗"
"""A sign, so that no colour is needed."""

CHANCE = 0.05
"""What chance alone brings about at most so often is called better or worse; else it only leans so."""

WIDEST = 100


class Part(NamedTuple):
    """What a part is about, for someone who has read nothing yet.

    Attributes:
        title: two or three words.
        problem: what goes wrong without the method.
        method: what the method does about it.
        items: what is asked, and the rule by which it was chosen.
    """

    title: str
    problem: str
    method: str
    items: str


class Result(NamedTuple):
    """One line of the closing table: a method against doing without it, on the same items.

    Attributes:
        method: the method.
        measure: what was measured, with an arrow: ↑ more is better, ↓ less is.
        without, under: the figure without the method and under it, as they are shown.
        better, worse: on how many items the method does better and worse.
        items: of how many.
    """

    method: str
    measure: str
    without: str
    under: str
    better: int
    worse: int
    items: int

    @property
    def chance(self) -> float:
        """How often chance alone parts the items that differ at least so unevenly: the exact sign test, two-sided."""
        differ = [True] * self.better + [False] * self.worse
        return mcnemar([not one for one in differ], differ).p

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.better == self.worse:
            return "even"
        way = "better" if self.better > self.worse else "worse"
        return way if self.chance < CHANCE else f"leans {way}"


def compared(method: str, measure: str, figures: tuple[str, str], pairs: Sequence[tuple[float, float]]) -> Result:
    """The result of numbers without and under the method, one pair an item, where higher is better."""
    better, worse = (sum(sign * (under - without) > 0 for without, under in pairs) for sign in (1, -1))
    return Result(method, measure, *figures, better, worse, len(pairs))


def output() -> Output:
    """Standard output, no wider than is good to read."""
    console = Output()
    console.width = min(console.width, WIDEST)
    return console


def heading(console: Output, number: int, count: int, part: Part) -> None:
    """The title, and what to know before the figures."""
    console.print(Rule(f"{number} of {count}: {part.title}", align="left"), "")
    console.print(told(("problem", part.problem), ("method", part.method), ("asked", part.items)), "")


def told(*lines: tuple[str, str]) -> Table:
    """Words with what they are about in front."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    for name, text in lines:
        grid.add_row(name, Text(text))
    return grid


def bullets(lines: Sequence[str]) -> Table:
    """Sentences, one below the other."""
    grid = Table.grid(padding=(0, 1))
    for line in lines:
        grid.add_row("*", Text(line))
    return grid


def measured(console: Output, results: Sequence[Result], remarks: Sequence[str]) -> None:
    """The lines beneath: what came out, and what to keep in mind."""
    console.print(figures(results), "", told(*(("note", remark) for remark in remarks)), "")


def figures(results: Sequence[Result]) -> Table:
    """A line a result."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("measured")
    for name in ("without", "with", "better", "worse", "chance"):
        table.add_column(name, justify="right")
    for one in results:
        chance = f"{100 * one.chance:.0f} of 100" if one.better + one.worse else "–"
        counted = (f"{one.better} of {one.items}", str(one.worse))
        table.add_row(f"{one.method}: {one.measure}", one.without, one.under, *counted, chance)
    return table


def mark(good: bool) -> Text:
    """Right or wrong, in its colour."""
    return Text(RIGHT, style="green") if good else Text(WRONG, style="red")


def closing(results: Sequence[tuple[str, Result]]) -> Table:
    """All results, by part."""
    table = Table(title="What came out", title_justify="left")
    table.add_column("measured")
    for name in ("without", "with", f"{RIGHT} : {WRONG}"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("in words", no_wrap=True)
    for title, some in groupby(results, key=itemgetter(0)):
        table.add_section()
        table.add_row(Text(title, style="bold"))
        for _, one in some:
            colour = {"better": "green", "worse": "red"}.get(one.verdict, "")
            counted = f"{one.better} : {one.worse}"
            said = Text(one.verdict, style=colour)
            table.add_row(f"  {one.method}: {one.measure}", one.without, one.under, counted, said)
    return table
