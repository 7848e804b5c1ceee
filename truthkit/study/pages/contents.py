"""What `study.json` holds, as plain data: sets of items, rows with their comparisons, looks at the data, provenance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from truthkit.evaluation.report.contents import Estimate
from truthkit.evaluation.report.words import Scale
from truthkit.statistics.intervals import Interval

BETTER, WORSE, EQUIVALENT, NO_EVIDENCE = "better", "worse", "equivalent", "no evidence"
VERDICTS = (BETTER, WORSE, EQUIVALENT, NO_EVIDENCE)
"""All verdicts; a row that is judged by nobody, such as greedy itself, has none."""

BASELINE, METHOD, CONTROL = "baseline", "method", "control"
ROLES = (BASELINE, METHOD, CONTROL)
"""What a row is in a study, in the order in which a set's rows are shown."""

ADJUSTED = {"holm": "Holm", "bh": "Benjamini–Hochberg"}
"""Corrections for a family of tests, by their names in a study."""


@dataclass(frozen=True)
class Against:
    """A row beside another one of its set, over the same items; NaN stands for what is not known.

    Attributes:
        label: of the other row.
        difference: the row's value minus the other's, with its interval.
        p: two-sided, of one test by itself.
        corrected: by correction, its p-value among the family's.
        effect: the difference, standardised.
        effect_name: how.
        smallest: the difference that a test by itself would have shown with 80 % power.
        smallest_corrected: the same after correction.
        equivalence_p: of the two one-sided tests at the set's margin, corrected where the study says it so.
        verdict: one of `VERDICTS`, or empty.
    """

    label: str
    difference: Estimate
    p: float
    corrected: Mapping[str, float]
    effect: float
    effect_name: str
    smallest: float
    smallest_corrected: float
    equivalence_p: float
    verdict: str


@dataclass(frozen=True)
class Choice:
    """An option's setting that was tried on development items: its decoder, its value there, and on how many items."""

    decoder: str
    value: float
    items: int


@dataclass(frozen=True)
class Row:
    """A decoder, with or without steering, on a set's test items.

    Attributes:
        label: unique in its set.
        method: what its decoder or steering is called.
        entry: what is the same row in every set, whatever options were chosen there; empty where that isn't known.
        role: one of `ROLES`.
        control_of: labels of the methods that it is a control of.
        settings: decoder, steering, sampling and seeds, as text by name.
        chosen_from: what its options were chosen from, if they were.
        value: of the set's metric, with its interval.
        items, items_run: how many items the value is of, and how many answers were made for it.
        seconds: per item.
        cost: its time over that of greedy.
        greedy, control: beside greedy, and beside the strongest of its controls.
        verdict: one of `VERDICTS`, or empty.
        said: the same in a sentence.
        looks: how often the set's test items had been read once this row was measured.
        metrics: all other figures.
        folders: of its runs, one for each seed.
    """

    label: str
    method: str
    entry: str
    role: str
    control_of: Sequence[str]
    settings: Mapping[str, str]
    chosen_from: Sequence[Choice]
    value: Estimate
    items: int
    items_run: int
    seconds: float
    cost: float
    greedy: Against | None
    control: Against | None
    verdict: str
    said: str
    looks: int
    metrics: Mapping[str, float]
    folders: Sequence[str]


@dataclass(frozen=True)
class EvalSet:
    """A task's items under one model.

    Attributes:
        id: its name in the study's files.
        name: what it is called in words; tells the sets of a study apart.
        task, title, model: the task, as its paper writes it, and the model.
        scale: how its metric is written.
        chance: the value of guessing; NaN where there is none to speak of.
        margin: the largest difference that counts as none.
        development, test: how many items options were chosen on, and how many the rows are measured on.
        clusters: of the test items, as an image with its questions.
        data: SHA-256 of its data and items by name.
        rows: by role, in the study's order.
    """

    id: str
    name: str
    task: str
    title: str
    model: str
    scale: Scale
    chance: float
    margin: float
    development: int
    test: int
    clusters: int
    data: Mapping[str, str]
    rows: Sequence[Row]

    def of(self, *roles: str) -> list[Row]:
        """The rows of these roles."""
        return [row for row in self.rows if row.role in roles]

    @property
    def compared(self) -> list[Row]:
        """The rows that stand beside greedy."""
        return [row for row in self.rows if row.greedy is not None]


@dataclass(frozen=True)
class Look:
    """One reading of a set's items: when, of which part, for which rows."""

    when: str
    set: str
    part: str
    rows: Sequence[str]


@dataclass(frozen=True)
class Study:
    """A study with its results.

    Attributes:
        name, note: what its author calls it, and says of it.
        alpha: the level of its tests.
        level: that of its intervals.
        correction: a name of `ADJUSTED`, by which its verdicts are given.
        family: how many tests are corrected for.
        seed: of the split and of all draws.
        sets: of items, with their rows.
        settings: everything else that was set, by name.
        looks: at the items, in the order of time.
        provenance: all that is known of how it was made.
    """

    name: str
    note: str
    alpha: float
    level: float
    correction: str
    family: int
    seed: int
    sets: Sequence[EvalSet]
    looks: Sequence[Look]
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def interval(self) -> str:
        """What its intervals are called: "95 % interval"."""
        return f"{100 * self.level:g} % interval"

    def corrected(self, against: Against) -> float:
        """The p-value that its verdicts go by."""
        return against.corrected[self.correction]

    def significant(self, against: Against | None) -> bool:
        """Whether a difference is more than chance would give, after correction."""
        return against is not None and self.corrected(against) <= self.alpha

    def looks_at(self, one: EvalSet) -> list[Look]:
        """The readings of a set's test items."""
        return [look for look in self.looks if look.set == one.id and look.part == "test"]

    def times_read(self, one: EvalSet) -> int:
        """How often a set's test items were read; by what its rows say, where the readings themselves are not told."""
        return max([len(self.looks_at(one)), *(row.looks for row in one.rows)])


def estimate(value: float, low: float, high: float) -> Estimate:
    """A value with its interval, or without one where its ends are not known."""
    return Estimate(value, Interval(low, high) if math.isfinite(low) and math.isfinite(high) else None)
