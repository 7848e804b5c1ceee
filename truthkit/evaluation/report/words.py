"""How runs, metrics and numbers are called and written in a report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from truthkit.evaluation.benchmark import Metric
from truthkit.statistics.intervals import Interval

NOTHING = "–"


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
    """Two significant digits; below one in a thousand only that; – for NaN."""
    if math.isnan(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def seconds(value: float) -> str:
    """A duration with two significant digits, in a unit that suits it; – for NaN."""
    if math.isnan(value):
        return NOTHING
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if value >= size or unit == "ms":
            scaled = value / size
            return f"{scaled:.{max(0, 1 - math.floor(math.log10(scaled))) if 0 < scaled < 100 else 0}f} {unit}"
    raise AssertionError("not reached: milliseconds take everything")


def run_name(config: Mapping[str, Any]) -> str:
    """Decoder and temperature: "vcd", "vcd, sampled at 1", or "sampling at 1" for the model alone."""
    if not config.get("sample"):
        return str(config["decoder"])
    alone = config["decoder"] in ("greedy", "sample")
    return f"{'sampling' if alone else config['decoder'] + ', sampled'} at {config['temperature']:g}"


@dataclass(frozen=True)
class Scale:
    """How a metric is written: a share from 0 to 1 in percent, anything else as it is."""

    metric: Metric

    @property
    def unit(self) -> str:
        """What a value is of, as shown; nothing where there is no unit."""
        return self.metric.shown_in

    @property
    def difference_unit(self) -> str:
        """What a difference is of."""
        return "percentage points" if self.unit == "%" else self.unit or "the metric's own unit"

    @property
    def title(self) -> str:
        """The metric with its unit: "accuracy, %"."""
        return f"{self.metric.title}, {self.unit}" if self.unit else self.metric.title

    @property
    def factor(self) -> float:
        """From the metric to what is shown."""
        return self.metric.factor

    def value(self, value: float) -> str:
        """A metric."""
        return f"{self.factor * value:.{self.metric.digits}f}" if math.isfinite(value) else NOTHING

    def quantity(self, value: float) -> str:
        """A metric with its unit, for a sentence."""
        return f"{self.value(value)} {self.unit}".rstrip()

    def tick(self, value: float) -> str:
        """A round number on an axis."""
        return f"{self.factor * value:.4g}"

    def interval(self, interval: Interval) -> str:
        """A metric's interval."""
        return f"{self.value(interval.low)} to {self.value(interval.high)}" if math.isfinite(interval.low) else NOTHING

    def difference(self, value: float) -> str:
        """A difference of two metrics, with its sign; a real minus, not a hyphen."""
        if not math.isfinite(value):
            return NOTHING
        shown, digits = round(self.factor * value, self.metric.digits), self.metric.digits
        return f"{shown:+.{digits}f}".replace("-", "−") if shown else f"{0:.{digits}f}"


YES = Scale(Metric("yes", "share of yes", better=0))
"""How often something is said."""
