"""What comparisons come to, in a word and in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from truthkit.evaluation.benchmark import Metric

Word: TypeAlias = Literal["better", "worse", "equivalent", "no evidence"]


def verdict(change: Mapping[str, Any], better: int, alpha: float) -> Word:
    """Of one comparison: a difference that is found comes first, then equivalence.

    Args:
        change: with `difference` and the corrected `p_holm` and `equivalence_p_holm`.
        better: 1 where more is better, -1 where less is.
        alpha: what the corrected p-values must not exceed.
    """
    if change["p_holm"] <= alpha and change["difference"]:
        return "better" if change["difference"] * better > 0 else "worse"
    return "equivalent" if change["equivalence_p_holm"] <= alpha else "no evidence"


def of_row(greedy: Mapping[str, Any], control: Mapping[str, Any] | None) -> Word:
    """Of a row: better only where it is better than greedy search and than its strongest control, if it has one."""
    word: Word = greedy["verdict"]
    beaten = control is None or control["verdict"] == "better"
    return "no evidence" if word == "better" and not beaten else word


def sentence(
    word: Word, greedy: Mapping[str, Any], control: Mapping[str, Any] | None, metric: Metric, margin: float, looks: int
) -> str:
    """The verdict in words, with the figures that it rests on."""
    by = f"{_difference(greedy, metric)}, corrected p {_p(greedy['p_holm'])}"
    if control is not None:
        beside = f"its strongest control, {control['label']}: {_difference(control, metric)}"
        beside += f", corrected p {_p(control['p_holm'])}"
    if math.isnan(greedy["difference"]):
        return f"The items leave {metric.title} nothing to rest on."
    match word:
        case "better":
            said = f"Better than {greedy['label']} ({by})"
            said += f" and than {beside}." if control is not None else "; it has no other control."
        case "worse":
            said = f"Worse than {greedy['label']} ({by})."
        case "equivalent":
            said = f"Equivalent to {greedy['label']}: within {_amount(margin, metric)} of it"
            said += f" ({_difference(greedy, metric)}; two one-sided tests, corrected p "
            said += f"{_p(greedy['equivalence_p_holm'])})."
        case _ if greedy["verdict"] == "better":
            said = f"Ahead of {greedy['label']} ({by}), but not shown to be better than {beside}."
        case _:
            said = f"No difference from {greedy['label']} was shown ({by})"
            least = greedy["smallest_detectable"]
            said += f"; one of {_amount(least, metric)} would have been found four times in five." if least else "."
    if looks > 1:
        said += f" The row was added after the test part had been read: this is look {looks}."
    return said


def _difference(change: Mapping[str, Any], metric: Metric) -> str:
    low, high = change["low"], change["high"]
    span = "" if low is None or math.isnan(low) else f" [{_value(low, metric)}, {_value(high, metric)}]"
    return f"{_value(change['difference'], metric)}{span} {_unit(metric)}".rstrip()


def _value(value: float, metric: Metric, sign: str = "+") -> str:
    return f"{100 * value if metric.share else value:{sign}.{metric.digits}f}"


def _amount(value: float, metric: Metric) -> str:
    return f"{_value(value, metric, '')} {_unit(metric)}".rstrip()


def _unit(metric: Metric) -> str:
    return "points" if metric.share else metric.unit


def _p(value: float) -> str:
    return f"= {value:.2g}" if value >= 1e-4 else "< 0.0001"
