"""A study's figures as CSV: a line for each row, every number whole; shares from 0 to 1, times in seconds."""

from __future__ import annotations

import csv
import io
import math

from truthkit.printable import printable
from truthkit.study.pages.contents import ADJUSTED, Against, EvalSet, Row, Study

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a spreadsheet would take for one


def csv_table(study: Study) -> str:
    """The whole file; a text that a spreadsheet would take for a formula has an apostrophe in front."""
    lines = [{**_set(one), **_row(row)} for one in study.sets for row in one.rows]
    names = list(dict.fromkeys(name for line in lines for name in line))
    extra = [name for name in names if name.startswith("metric: ")]
    heads = [name for name in names if name not in extra] + extra
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(_text, heads))
    writer.writerows([_cell(line.get(name, "")) for name in heads] for line in lines)
    return file.getvalue()


def _set(one: EvalSet) -> dict[str, str | float]:
    return {
        "set": one.id,
        "task": one.task,
        "title": one.title,
        "model": one.model,
        "headline": one.scale.metric.name,
        "unit": "share" if one.scale.metric.share else one.scale.metric.unit or "number",
        "higher_is_better": int(one.scale.metric.better > 0),
        "chance": one.chance,
        "margin": one.margin,
        "development_items": one.development,
        "test_items": one.test,
        "clusters": one.clusters,
    }


def _row(row: Row) -> dict[str, str | float]:
    interval = row.value.interval
    found: dict[str, str | float] = {
        "label": row.label,
        "method": row.method,
        "entry": row.entry,
        "role": row.role,
        "control_of": "; ".join(row.control_of),
        **row.settings,
        "settings_tried": len(row.chosen_from),
        "value": row.value.value,
        "low": interval.low if interval else math.nan,
        "high": interval.high if interval else math.nan,
        "items": row.items,
        "answers": row.items_run,
        "seconds_per_item": row.seconds,
        "cost": row.cost,
        **_against("greedy", row.greedy),
        **_against("control", row.control),
        "verdict": row.verdict,
        "said": row.said,
        "test_looks": row.looks,
        "folder": "; ".join(row.folders),
    }
    return found | {f"metric: {name}": value for name, value in row.metrics.items()}


def _against(name: str, against: Against | None) -> dict[str, str | float]:
    if against is None:
        return {}
    value, interval = against.difference
    found: dict[str, str | float] = {
        "label": against.label,
        "difference": value,
        "low": interval.low if interval else math.nan,
        "high": interval.high if interval else math.nan,
        "p": against.p,
        **{f"p_{correction}": against.corrected[correction] for correction in ADJUSTED},
        "effect": against.effect,
        "effect_name": against.effect_name,
        "smallest_detectable": against.smallest,
        "smallest_detectable_corrected": against.smallest_corrected,
        "equivalence_p": against.equivalence_p,
        "verdict": against.verdict,
    }
    return {f"{name}_{field}": figure for field, figure in found.items()}


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return _text(value)
    return repr(value) if math.isfinite(value) else ""


def _text(text: str) -> str:
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) else text
