"""What a benchmark is to the command line, to reports and to the reference: one object that says all about it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from truthkit.errors import ArgumentError
from truthkit.evaluation.options import Option, options_of
from truthkit.evaluation.running.hub import HubData
from truthkit.evaluation.running.task import Task

if TYPE_CHECKING:
    from truthkit.statistics.score import Score

Lines = Sequence[Mapping[str, Any]]
"""Lines of a run's `items.jsonl`."""

Config = Mapping[str, Any]
"""The `config` of a run's summary."""

Chance = float | Callable[[Lines], float]
"""What guessing scores, as the metric has it: a number, or a function of the lines of what was asked."""


class Grid(NamedTuple):
    """A small table of texts: its title, the heads of its columns, and its rows, each with a head in front."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Curve(NamedTuple):
    """A line that a report draws for a run, from x = 0 to 1.

    Attributes:
        title: what it shows.
        note: how to read it.
        x, y: what the axes are, shares both.
        points: of the line, by x.
    """

    title: str
    note: str
    x: str
    y: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Metric:
    """One figure of a benchmark, or a family of them.

    Attributes:
        name: as in summaries; `*` in it stands for what a family's names differ in, as `f1_*`.
        title: as its paper writes it, with `*` in a family's; the name with spaces by default.
        better: 1 where more is, -1 where less is, 0 where neither is.
        share: from 0 to 1, shown in percent.
        unit: of what is no share, as "words"; a number without one has none.
        digits: decimals that a report shows, of a share those of the percentage.
        field: of an item's line, whose mean the metric is, where that has another name.
        otherwise: the metric that it equals in runs which don't state it: without a contrast, raw scores are the
            log-probabilities themselves.
        chance: what guessing scores; see `Benchmark.chance`. None: nothing that one could say.
    """

    name: str
    title: str = ""
    better: int = 1
    share: bool = True
    unit: str = ""
    digits: int = 1
    field: str = ""
    otherwise: str = ""
    chance: Chance | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", self.title or spaced(self.name))

    def member(self, name: str) -> Metric | None:
        """The metric of that name, if it is this one or of this family."""
        pattern = "(.+)".join(map(re.escape, self.name.split("*")))
        if (found := re.fullmatch(pattern, name)) is None:
            return None
        return replace(self, name=name, title=self.title.replace("*", spaced("".join(found.groups()))))

    @property
    def arrow(self) -> str:
        """A sign for the better direction; nothing where neither is."""
        return {1: "↑", -1: "↓", 0: ""}[self.better]

    @property
    def measured_in(self) -> str:
        """What its value in files is of: "share" for one from 0 to 1, "words", "%"; nothing for a bare number."""
        return "share" if self.share else self.unit

    @property
    def shown_in(self) -> str:
        """What its value on a page or in the terminal is of: "%" for a share, "words"; nothing for a bare number."""
        return "%" if self.share else self.unit

    @property
    def factor(self) -> float:
        """From its value in files to the one that is shown."""
        return 100.0 if self.share else 1.0

    @property
    def reading(self) -> str:
        """How its value in the terminal is read: "% ↑", "words", "points ↑"."""
        return " ".join(filter(None, (self.shown_in, self.arrow)))

    def plain(self, value: float, *, sign: str = "") -> str:
        """A value in the terminal: a share in percent; a digit more than in a report; – for NaN."""
        return f"{self.factor * value:{sign}.{self.digits + 1}f}" if math.isfinite(value) else "–"

    def span(self, low: float, high: float, *, sign: str = "") -> str:
        """An interval in the terminal."""
        if not math.isfinite(low):
            return "–"
        return f"{self.plain(low, sign=sign)} to {self.plain(high, sign=sign)}"


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, whole: what it asks, how answers are scored, and how its figures are to be read.

    Attributes:
        name: on the command line, and of its runs.
        title: as its paper writes it.
        task: from data and options to what is asked. Its first argument is the path of the data; its keyword arguments
            are options of `truthkit eval`, their kinds and defaults from the signature, their help from the docstring.
        metrics: declared once each, a single one before the family that it is also of.
        hub: where its data is on the Hugging Face hub.
        examples: commands to copy.
        rescore: the score of some items of a finished run, from their lines and its config. None: the means of the
            declared metrics, over the fields of those names.
        score_files: scores answers that anyone's code wrote, from their path and that of the data, for `truthkit
            score`; options, help and the description of the files as of `task`. Where the data has a default, it may
            be left out.
        score_run: scores the items of a finished run again, for `truthkit score` too: from their lines, each with the
            `choices` that it was asked with, the path of the data or None, and the same options.
        parts: the same score of every category apart, for `truthkit score`.
        outcomes: entries of a score's config that were found, not set.
        remarks: what a run's config has to say beyond the table of metrics.
        curve: the line of a run, from its config, that reports draw; None where it has none.

    Raises:
        ArgumentError: the name, a metric or an option can't be used; the message says which.
    """

    name: str
    title: str
    task: Callable[..., Task]
    metrics: tuple[Metric, ...] = ()
    hub: HubData | None = None
    examples: tuple[str, ...] = ()
    rescore: Callable[[Lines, Config], Score] | None = None
    score_files: Callable[..., Score] | None = None
    score_run: Callable[..., Score] | None = None
    parts: Callable[[Score], Mapping[str, Score]] | None = None
    outcomes: tuple[str, ...] = ()
    remarks: Callable[[Config], Sequence[str | Grid]] | None = None
    curve: Callable[[Config], Curve | None] | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.name):
            raise ArgumentError(f"a benchmark is named {self.name!r}; expected small letters, digits, - and _.")
        names = [metric.name for metric in self.metrics]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ArgumentError(f"{self.name} declares the metric {twice[0]!r} twice.")
        _ = self.options, self.file_options

    @cached_property
    def options(self) -> dict[str, Option]:
        """Its options of `truthkit eval`."""
        return options_of(self.task)

    @cached_property
    def file_options(self) -> dict[str, Option]:
        """Its options of `truthkit score`."""
        return options_of(self.score_files) if self.score_files else {}

    def metric(self, name: str) -> Metric:
        """What is declared of a metric; of one that isn't, no unit and no direction, three decimals."""
        found = (declared.member(name) for declared in self.metrics)
        return next(filter(None, found), Metric(name, better=0, share=False, digits=3))

    def chance(self, name: str, lines: Lines) -> float | None:
        """What guessing would score on what these lines were asked.

        None where the metric declares no such level, or lines of another version don't say what it rests on.
        """
        level = self.metric(name).chance
        if not callable(level):
            return level
        try:
            return float(level(lines))
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None

    def units(self, names: Iterable[str]) -> dict[str, str]:
        """What each of these metrics is measured in, for files."""
        return {name: self.metric(name).measured_in for name in names}


def spaced(name: str) -> str:
    """A name in words."""
    return name.replace("_", " ")
