"""What stands in a report, as plain data: sections of runs, their tests, costs, categories and flipped items."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from truthkit.evaluation.benchmark import Benchmark
from truthkit.evaluation.report.compare import Comparison, Run
from truthkit.evaluation.report.flips import Asked
from truthkit.evaluation.report.words import Scale
from truthkit.statistics.intervals import Difference, Interval


class Estimate(NamedTuple):
    """A number and its 95 % interval, where it has one."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Test:
    """A run against its baseline, over the items that both have.

    Attributes:
        against: the baseline's label.
        difference: of the headline metric; its p-value is the paired bootstrap's.
        holm: that p-value, adjusted for the number of tests in the section.
        comparison: all metrics, and McNemar's test.
    """

    against: str
    difference: Difference
    holm: float
    comparison: Comparison


@dataclass(frozen=True)
class Entry:
    """A run in its section.

    Attributes:
        run: with its summary and items.
        label: unique in the section.
        metrics: every metric of the summary.
        cost: seconds per item, if the run's records are there.
        yes: share of answers read as yes, of yes/no tasks.
        categories: the headline metric of every category; of MME, each subtask's own.
        test: against its baseline; None for the baseline, and where there is nothing to test.
    """

    run: Run
    label: str
    metrics: dict[str, Estimate]
    cost: Estimate | None
    yes: Estimate | None
    categories: dict[str, Estimate]
    test: Test | None


@dataclass(frozen=True)
class Section:
    """The runs of one task on the same data.

    Attributes:
        title: the task's, with the data's names where a report has the task twice.
        headline: the metric that is tested and plotted.
        benchmark: what it declares of its metrics.
        entries: by model; the baseline first.
        yes_labels: share of right answers that are yes, of yes/no tasks.
        caveats: sentences that the reader has to see.
        flips: items whose answers changed.
        flipped: how many did.
        items: all that were asked, or those that were wanted, in the order of the data.
    """

    title: str
    headline: str
    benchmark: Benchmark
    entries: list[Entry]
    yes_labels: Estimate | None
    caveats: list[str]
    flips: list[Asked]
    flipped: int
    items: list[Asked] = field(default_factory=list)

    def scale(self, metric: str | None = None) -> Scale:
        """How a metric is written; the headline's by default, which is that of its categories, too."""
        return Scale(self.benchmark.metric(metric or self.headline))

    def chance(self, metric: str | None = None) -> float | None:
        """What guessing scores on the baseline's items; by default in the headline metric. None: nothing to say."""
        return self.benchmark.chance(metric or self.headline, self.baseline.run.items)

    def chance_in(self, category: str) -> float | None:
        """The same for the headline metric of a category, or for the metric that it has of its own."""
        items = [item for item in self.baseline.run.items if str(item.get("category")) == category]
        own = any(category in entry.metrics for entry in self.entries)
        return self.benchmark.chance(category if own else self.headline, items)

    @property
    def metrics(self) -> list[str]:
        """Names of all metrics, but for those that are a category's."""
        names = dict.fromkeys(name for entry in self.entries for name in entry.metrics)
        return [name for name in names if name not in self.categories]

    @property
    def categories(self) -> list[str]:
        """Names of all categories, in order of appearance; none if there are not two."""
        return list(dict.fromkeys(name for entry in self.entries for name in entry.categories))

    @property
    def baseline(self) -> Entry:
        """The first entry."""
        return self.entries[0]

    def reference(self, entry: Entry) -> Entry | None:
        """What an entry is tested against."""
        return next((other for other in self.entries if entry.test and other.label == entry.test.against), None)

    @property
    def tested(self) -> list[Entry]:
        """Entries with a test."""
        return [entry for entry in self.entries if entry.test is not None]


@dataclass(frozen=True)
class Report:
    """A report: its sections, and what has to be said about folders that are not in it."""

    sections: list[Section]
    notes: list[str]

    @property
    def runs(self) -> int:
        """How many runs it shows."""
        return sum(len(section.entries) for section in self.sections)
