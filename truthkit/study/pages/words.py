"""How a study's figures are written, and what its verdicts say in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

from truthkit.evaluation.report.contents import Estimate
from truthkit.evaluation.report.words import NOTHING, Scale, capital, counted, p_value
from truthkit.study.pages.contents import ADJUSTED, Against, EvalSet, Row, Study


def unit(scale: Scale) -> str:
    """What a difference is of, in one word: points, of percentages."""
    return "points" if scale.unit == "%" else scale.unit


def capital_unit(scale: Scale) -> str:
    """What a chart of differences is in, to begin a sentence."""
    return {"%": "Percentage points", "": "Differences"}.get(scale.unit, capital(scale.unit))


def with_unit(text: str, scale: Scale) -> str:
    """A difference and its unit."""
    return f"{text} {unit(scale)}".rstrip()


def margin(one: EvalSet) -> str:
    """The largest difference that counts as none: "±2.0 points"."""
    if not math.isfinite(one.margin):
        return "no margin"
    return with_unit(f"±{one.scale.difference(one.margin).lstrip('+')}", one.scale)


def span(scale: Scale, difference: Estimate) -> str:
    """A difference's interval; nothing where it has none."""
    if difference.interval is None:
        return ""
    return f"{scale.difference(difference.interval.low)} to {scale.difference(difference.interval.high)}"


def size(scale: Scale, value: float) -> str:
    """A difference without a direction."""
    return scale.difference(abs(value)).lstrip("+")


def times(cost: float) -> str:
    """A time as a multiple of greedy's."""
    return f"{cost:.3g} ×" if math.isfinite(cost) else NOTHING


def plain(value: float) -> str:
    """A number without a unit, such as an effect size."""
    if not math.isfinite(value):
        return NOTHING
    shown = round(value, 2)
    return f"{shown:+.2f}".replace("-", "−") if shown else "0.00"


def p_is(p: float) -> str:
    """A p-value in a sentence."""
    shown = p_value(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}" if shown != NOTHING else "p unknown"


def percent(share: float) -> str:
    """A level: "5 %"."""
    return f"{100 * share:g} %"


def adjusted(study: Study) -> str:
    """The name of the correction."""
    return ADJUSTED[study.correction]


def beside(study: Study, one: EvalSet, against: Against) -> str:
    """A comparison in words: "+3.1 points from greedy (1.0 to 5.2; p = 0.003 after Holm's correction)"."""
    inside = "; ".join(filter(None, (span(one.scale, against.difference), p_is(study.corrected(against)))))
    change = with_unit(one.scale.difference(against.difference.value), one.scale)
    return f"{change} from {against.label} ({inside})"


def where(one: EvalSet, row: Row) -> str:
    """A row's label with its set."""
    return f"{row.label} on {one.name}"


def items(one: EvalSet) -> str:
    """How many test items there are, and in how many clusters."""
    if one.clusters == one.test:
        return counted(one.test, "test item")
    return f"{counted(one.test, 'test item')} in {counted(one.clusters, 'cluster')}"


def chance(one: EvalSet) -> str:
    """What guessing would give; nothing where there is none to speak of."""
    return f"chance {one.scale.quantity(one.chance)}" if math.isfinite(one.chance) else ""


def detectable(one: EvalSet, against: Sequence[Against]) -> str:
    """In a sentence, the differences that samples of this size are likely to show; nothing where none is known."""
    alone = _reach(one.scale, [other.smallest for other in against])
    corrected = _reach(one.scale, [other.smallest_corrected for other in against])
    if not alone:
        return ""
    after = f" ({corrected} after correction)" if corrected else ""
    return f"a true difference of {with_unit(alone, one.scale)}{after} shows in 4 of 5 such samples"


def _reach(scale: Scale, values: Sequence[float]) -> str:
    """From the smallest to the largest of some differences, without directions; nothing where none is known."""
    known = sorted(abs(value) for value in values if math.isfinite(value))
    if not known:
        return ""
    low, high = size(scale, known[0]), size(scale, known[-1])
    return low if low == high else f"{low} to {high}"


def about(one: EvalSet) -> str:
    """A set in a sentence: model, metric, chance, how many items, and the margin."""
    parts = [one.model, f"{one.scale.title} {one.scale.metric.arrow}".rstrip(), chance(one), items(one)]
    parts += [counted(one.development, "development item"), f"equivalent within {margin(one)}"]
    return f"{' · '.join(filter(None, parts))}."


def tick(scale: Scale, value: float) -> str:
    """A round difference on an axis, with its sign."""
    shown = scale.tick(abs(value))
    return shown if shown == "0" else f"{'−' if value < 0 else '+'}{shown}"


def when(time: str) -> str:
    """A time as a study has it, to the minute; any other text as it is."""
    try:
        found = datetime.fromisoformat(time)
    except ValueError:
        return time
    return f"{found:%Y-%m-%d %H:%M}{' UTC' if found.utcoffset() == timedelta() else ''}"


def method(row: Row) -> str:
    """What a row's method is called, where its label doesn't begin with it."""
    return "" if row.label.lower().startswith(row.method.lower()) else row.method
