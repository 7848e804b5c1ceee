"""How tasks, metrics and numbers are called and written in a report."""

from __future__ import annotations

import math
from dataclasses import dataclass

from truthkit.statistics.intervals import Interval

_TASKS = {"pope": "POPE", "chair": "CHAIR", "mme": "MME", "truthfulqa": "TruthfulQA", "factor": "FACTOR"}
_METRICS = {
    "f1": "F1",
    "yes_ratio": "yes ratio",
    "chair_s": "CHAIR-s",
    "chair_i": "CHAIR-i",
    "mc1": "MC1",
    "mc2": "MC2",
    "mc3": "MC3",
}
_DIRECTIONS = {"chair_s": -1, "chair_i": -1, "ece": -1, "yes_ratio": 0}

NOTHING = "–"


def task_title(task: str) -> str:
    """A task as its paper writes it."""
    return _TASKS.get(task, task)


def metric_title(metric: str) -> str:
    """A metric as its paper writes it."""
    return _METRICS.get(metric, metric.replace("_", " "))


def direction(metric: str) -> int:
    """1 where more is better, -1 where less is, 0 where neither is."""
    return _DIRECTIONS.get(metric, 1)


def counted(number: int, noun: str) -> str:
    """A number and its noun: 1 run, 2 runs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def capital(text: str) -> str:
    """With a capital letter in front."""
    return text[:1].upper() + text[1:]


def listed(names: list[str]) -> str:
    """As one lists things: a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def p_value(p: float) -> str:
    """Two significant digits; below one in a thousand only that."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def seconds(value: float) -> str:
    """A duration with two significant digits, in a unit that suits it."""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if value >= size or unit == "ms":
            scaled = value / size
            return f"{scaled:.{max(0, 1 - math.floor(math.log10(scaled))) if 0 < scaled < 100 else 0}f} {unit}"
    raise AssertionError("not reached: milliseconds take everything")


@dataclass(frozen=True)
class Scale:
    """How a task's metrics are written: shares from 0 to 1 in percent, anything else as it is; one decimal."""

    shares: bool

    @property
    def unit(self) -> str:
        """What stands behind a value."""
        return " %" if self.shares else ""

    def value(self, value: float) -> str:
        """A metric."""
        return f"{self._shown(value):.1f}" if math.isfinite(value) else NOTHING

    def tick(self, value: float) -> str:
        """A round number on an axis."""
        return f"{self._shown(value):.4g}"

    def interval(self, interval: Interval) -> str:
        """A metric's interval."""
        return f"{self.value(interval.low)} to {self.value(interval.high)}"

    def difference(self, value: float) -> str:
        """A difference of two metrics, with its sign; a real minus, not a hyphen."""
        if not math.isfinite(value):
            return NOTHING
        shown = round(self._shown(value), 1)
        return f"{shown:+.1f}".replace("-", "−") if shown else "0.0"

    def _shown(self, value: float) -> float:
        return 100 * value if self.shares else value
