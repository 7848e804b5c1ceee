"""A study from its `study.json`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.evaluation.benchmark import Metric
from truthkit.evaluation.report.words import Scale
from truthkit.evaluation.tasks import benchmark_of
from truthkit.files.json_text import shown
from truthkit.files.reading import read_json
from truthkit.files.shapes import ANYTHING, INTEGER, NUMBER, TEXT, TRUTH, check, optional
from truthkit.study.pages.contents import (
    ADJUSTED,
    ROLES,
    VERDICTS,
    Against,
    Choice,
    EvalSet,
    Look,
    Row,
    Study,
    estimate,
)

FILE = "study.json"
_EFFECTS = {"h": "Cohen's h", "d": "Cohen's d"}

_FIGURE = optional(NUMBER)
_AGAINST = {
    "label!": TEXT,
    "difference!": _FIGURE,
    "low!": _FIGURE,
    "high!": _FIGURE,
    "p!": _FIGURE,
    "p_holm!": _FIGURE,
    "p_bh": _FIGURE,
    "effect": _FIGURE,
    "effect_name": optional(TEXT),
    "smallest_detectable": _FIGURE,
    "smallest_detectable_corrected": _FIGURE,
    "equivalence_p": _FIGURE,
    "equivalence_p_holm": _FIGURE,
    "verdict": optional(TEXT),
}
_STUDY = {
    "name!": TEXT,
    "note": optional(TEXT),
    "alpha!": NUMBER,
    "level!": NUMBER,
    "correction!": TEXT,
    "seed": INTEGER,
    "family!": INTEGER,
}
_SHAPE = {
    "study!": _STUDY,
    "sets!": [
        {
            "id!": TEXT,
            "task!": TEXT,
            "benchmark": TEXT,
            "title": optional(TEXT),
            "model!": TEXT,
            "metric!": TEXT,
            "metric_title": optional(TEXT),
            "unit!": TEXT,
            "unit_name": optional(TEXT),
            "digits": INTEGER,
            "higher_is_better!": TRUTH,
            "chance": _FIGURE,
            "margin!": _FIGURE,
            "development!": INTEGER,
            "test!": INTEGER,
            "clusters!": INTEGER,
            "data_sha256": {"*": TEXT},
            "items_sha256": {"*": TEXT},
        }
    ],
    "rows!": [
        {
            "set!": TEXT,
            "label!": TEXT,
            "method!": TEXT,
            "entry": optional(TEXT),
            "role!": TEXT,
            "control_of": [TEXT],
            "decoder!": TEXT,
            "steer": optional(TEXT),
            "sample": TRUTH,
            "temperature": NUMBER,
            "seeds": [INTEGER],
            "chosen_from": [{"decoder!": TEXT, "value!": _FIGURE, "n!": INTEGER}],
            "value!": _FIGURE,
            "low!": _FIGURE,
            "high!": _FIGURE,
            "n!": INTEGER,
            "items_run": optional(INTEGER),
            "seconds_per_item": _FIGURE,
            "cost": _FIGURE,
            "against": {"*": ANYTHING},
            "verdict": optional(TEXT),
            "said": optional(TEXT),
            "test_looks": optional(INTEGER),
            "metrics": {"*": ANYTHING},
            "folder": optional(TEXT),
            "folders": [TEXT],
            "options": {"*": ANYTHING},
        }
    ],
    "looks": [{"when!": TEXT, "set!": TEXT, "part!": TEXT, "rows": [TEXT]}],
    "provenance": {"*": ANYTHING},
}


def read_study(folder: Path) -> Study:
    """The study in a folder.

    Raises:
        NotAvailableError: there is no `study.json`.
        ArgumentError: it is not one that `truthkit study` writes; the message says what is amiss.
    """
    path = folder / FILE
    if not path.is_file():
        raise NotAvailableError(f"{folder} holds no finished study: there is no {FILE}. Run `truthkit study` with it.")
    found = read_json(path)
    check(found, _SHAPE, str(path))
    about = found["study"]
    if about["correction"] not in ADJUSTED:
        raise ArgumentError(f"{path}: correction is {shown(about['correction'])}; expected {' or '.join(ADJUSTED)}.")
    sets = {one["id"]: _set(one) for one in found["sets"]}
    rows: dict[str, list[Row]] = {name: [] for name in sets}
    for number, row in enumerate(found["rows"], 1):
        if row["set"] not in sets:
            raise ArgumentError(f"{path}: row {number} is of the set {shown(row['set'])}, which is none of its sets.")
        rows[row["set"]].append(_row(row, f"{path}, row {number}"))
    for of in rows.values():
        of.sort(key=lambda row: ROLES.index(row.role))
    return Study(
        about["name"],
        about.get("note") or "",
        about["alpha"],
        about["level"],
        about["correction"],
        about["family"],
        about.get("seed", 0),
        _named([replace(one, rows=rows[name]) for name, one in sets.items()]),
        [Look(look["when"], look["set"], look["part"], look.get("rows", ())) for look in found.get("looks", ())],
        {name: value for name, value in about.items() if name not in _STUDY and f"{name}!" not in _STUDY},
        found.get("provenance", {}),
    )


def _set(found: Mapping[str, Any]) -> EvalSet:
    benchmark, share = benchmark_of(found.get("benchmark") or found["task"]), found["unit"] == "percent"
    declared = benchmark.metric(found["metric"])
    metric = Metric(
        found["metric"],
        found.get("metric_title") or declared.title,
        better=1 if found["higher_is_better"] else -1,
        share=share,
        unit="" if share else found.get("unit_name") or declared.unit,
        digits=found.get("digits", declared.digits if declared.share == share else 1 if share else 3),
    )
    title = found.get("title") or benchmark.title
    return EvalSet(
        found["id"],
        title,
        found["task"],
        title,
        found["model"],
        Scale(metric),
        _number(found.get("chance")),
        _number(found["margin"]),
        found["development"],
        found["test"],
        found["clusters"],
        found.get("data_sha256", {}) | {f"{part} items": key for part, key in found.get("items_sha256", {}).items()},
        (),
    )


def _named(sets: list[EvalSet]) -> list[EvalSet]:
    """With names that tell them apart: the title, with the model where that is needed, or else the id."""
    for name in (lambda one: f"{one.title}, {one.model}", lambda one: f"{one.title}, {one.id}"):
        times = Counter(one.name for one in sets)
        sets = [replace(one, name=name(one)) if times[one.name] > 1 else one for one in sets]
    return sets


def _row(found: Mapping[str, Any], where: str) -> Row:
    if found["role"] not in ROLES:
        raise ArgumentError(f"{where}: role is {shown(found['role'])}; expected {', '.join(ROLES)}.")
    against = found.get("against", {})
    settings = {
        "decoder": found["decoder"],
        "steering": found.get("steer") or "none",
        "sampling": f"at temperature {found.get('temperature', 1.0):g}" if found.get("sample") else "no",
        "options": ", ".join(f"{name} {value}" for name, value in found.get("options", {}).items()) or "none",
        "seeds": ", ".join(map(str, found.get("seeds", ()))),
    }
    return Row(
        found["label"],
        found["method"],
        found.get("entry") or "",
        found["role"],
        found.get("control_of", ()),
        settings,
        [Choice(one["decoder"], _number(one["value"]), one["n"]) for one in found.get("chosen_from", ())],
        estimate(*(_number(found[name]) for name in ("value", "low", "high"))),
        found["n"],
        found.get("items_run") or 0,
        _number(found.get("seconds_per_item")),
        _number(found.get("cost")),
        _against(against.get("greedy"), where),
        _against(against.get("strongest control"), where),
        _verdict(found, where),
        found.get("said") or "",
        found.get("test_looks") or 0,
        dict(_plain(found.get("metrics", {}))),
        found.get("folders") or list(filter(None, [found.get("folder")])),
    )


def _against(found: Any, where: str) -> Against | None:
    if found is None:
        return None
    check(found, _AGAINST, f"a comparison of {where}")
    return Against(
        found["label"],
        estimate(*(_number(found[name]) for name in ("difference", "low", "high"))),
        _number(found["p"]),
        {"holm": _number(found["p_holm"]), "bh": _number(found.get("p_bh"))},
        _number(found.get("effect")),
        _EFFECTS.get(found.get("effect_name") or "", found.get("effect_name") or ""),
        _number(found.get("smallest_detectable")),
        _number(found.get("smallest_detectable_corrected")),
        _number(found.get("equivalence_p") if (equal := found.get("equivalence_p_holm")) is None else equal),
        _verdict(found, where),
    )


def _verdict(found: Mapping[str, Any], where: str) -> str:
    verdict = found.get("verdict") or ""
    if verdict and verdict not in VERDICTS:
        raise ArgumentError(f"{where}: verdict is {shown(verdict)}; expected {', '.join(VERDICTS)}, or nothing.")
    return verdict


def _plain(metrics: Mapping[str, Any], before: str = "") -> list[tuple[str, float]]:
    """All numbers of a nested object, by their path: `accuracy.low`."""
    found = []
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found += _plain(value, f"{before}{name}.")
        elif value is None or NUMBER.fits(value):
            found.append((f"{before}{name}", _number(value)))
    return found


def _number(value: float | None) -> float:
    """A figure; NaN for null, and for what is no number that could be shown."""
    return float(value) if value is not None and math.isfinite(value) else math.nan
