"""`study.json`: every row with its figures, what it is held against, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from truthkit.errors import ArgumentError
from truthkit.evaluation.report.compare import Run
from truthkit.evaluation.report.rescore import rescore
from truthkit.files.versions import versions
from truthkit.files.writing import file_sha256
from truthkit.statistics.intervals import benjamini_hochberg, cluster_totals, holm
from truthkit.study.comparing import Change, Outcome, changes, drawn, interval
from truthkit.study.decisions import Looks
from truthkit.study.entries import Study
from truthkit.study.rows import Row
from truthkit.study.running import seconds_of
from truthkit.study.sets import StudySet
from truthkit.study.verdicts import of_row, sentence, verdict

_CONTROL = "strongest control"


@dataclass(frozen=True)
class Measured:
    """A row with its finished runs, one for each seed."""

    of: StudySet
    row: Row
    runs: Sequence[Run]

    @property
    def key(self) -> tuple[str, str]:
        """The set's id and the row's label."""
        return self.of.id, self.row.label

    @cached_property
    def outcome(self) -> Outcome:
        """What the answers count."""
        tables = []
        for run in self.runs:
            score = rescore(run.items, run.summary["config"], others=list(run.summary["metrics"]))
            tables.append((cluster_totals(score.counts, score.clusters), score.measure))
        return Outcome(tuple(tables), self.of.metric.name)

    def mean(self, of: str, name: str) -> float:
        """A figure of the summaries, over the seeds."""
        return float(np.mean([run.summary[of][name] for run in self.runs]))

    @cached_property
    def seconds(self) -> float:
        """How long the answers took."""
        return sum(seconds_of(run.folder) for run in self.runs)


def results(
    study: Study, measured: Sequence[Measured], looks: Looks, stages: Mapping[str, int], command: str
) -> dict[str, Any]:
    """The contents of `study.json`."""
    settings, by_set = study.settings, dict[str, list[Measured]]()
    for one in measured:
        by_set.setdefault(one.of.id, []).append(one)
    family = sum(one.row.role == "method" for one in measured)
    flips = max(settings["resamples"], -(-int(8 * family / settings["alpha"]) // 10_000) * 10_000)
    rows: list[dict[str, Any]] = []
    for some in by_set.values():
        rows += _set_rows(some, settings, flips, family)
    for name in ("greedy", _CONTROL):
        correct([row["against"][name] for row in rows if row["role"] == "method" and row["against"].get(name)])
    about, related = {one.key: one for one in measured}, _related([some[0].of for some in by_set.values()])
    for row in rows:
        one = about[row["set"], row["label"]]
        row["test_looks"] = looks.number(related[one.of.id], max(one.row.stage, stages[one.of.id]))
        _judge(row, one, settings["alpha"])
    first = measured[0].runs[0].summary["provenance"]
    return {
        "study": {"name": study.name, "note": study.note, "correction": "holm", "family": family, "flips": flips}
        | settings,
        "sets": [_about_set(some[0], some[0].outcome.clusters) for some in by_set.values()],
        "rows": rows,
        "looks": looks.told(),
        "provenance": {
            "truthkit": versions()["truthkit"],
            "versions": first["versions"],
            "hardware": first["hardware"],
            "command": command,
            "study_sha256": file_sha256(study.path),
            "seconds": round(sum(one.seconds for one in measured), 1),
        },
    }


def correct(family: Sequence[dict[str, Any]]) -> None:
    """Put the corrected p-values of a family of comparisons into them."""
    differences = [one["p"] for one in family]
    for name, values in (
        ("p_holm", holm(differences)),
        ("p_bh", benjamini_hochberg(differences)),
        ("equivalence_p_holm", holm([one["equivalence_p"] for one in family])),
    ):
        for one, value in zip(family, values, strict=True):
            one[name] = value


def _set_rows(some: Sequence[Measured], settings: Mapping[str, Any], flips: int, family: int) -> list[dict[str, Any]]:
    """A set's rows, each with its uncorrected comparisons."""
    metric, margin = some[0].of.metric, some[0].of.entry.margin
    keys = [[item["key"] for item in one.runs[0].items] for one in some]
    if any(own != keys[0] for own in keys):
        other = next(one for one, own in zip(some, keys, strict=True) if own != keys[0])
        raise ArgumentError(f"{other.of.id}: {other.row.label} was asked other items than greedy; delete its folder.")
    outcomes = {one.row.label: one.outcome for one in some}
    draws = dict(zip(outcomes, drawn(list(outcomes.values()), resamples=settings["resamples"]), strict=True))
    strongest = {one.row.label: _strongest(one, some) for one in some if one.row.role == "method"}
    base = next(one for one in some if one.row.role == "baseline")
    pairs = [(one.row.label, base.row.label) for one in some if one is not base]
    pairs += [(label, control) for label, control in strongest.items() if control is not None]
    found = changes(
        [(outcomes[row], outcomes[other]) for row, other in pairs],
        [(draws[row], draws[other]) for row, other in pairs],
        margin=margin,
        share=metric.share,
        level=settings["level"],
        flips=flips,
    )
    compared = {
        pair: _comparison(pair[1], change, settings["alpha"], family) for pair, change in zip(pairs, found, strict=True)
    }
    rows = []
    for one in some:
        label, way = one.row.label, one.row.way
        span = interval(one.outcome, draws[label], level=settings["level"], share=metric.share)
        control = strongest.get(label)
        against: dict[str, Any] = {"greedy": compared[label, base.row.label]} if one is not base else {}
        if one.row.role == "method":
            against[_CONTROL] = dict(compared[label, control]) if control is not None else None
        rows.append(
            {
                "set": one.of.id,
                "label": label,
                "entry": one.row.entry,
                "method": way.method,
                "role": one.row.role,
                "control_of": list(one.row.control_of),
                "decoder": way.decoder,
                "steer": way.steered,
                "options": dict(way.options),
                "sample": way.draws,
                "temperature": way.temperature,
                "seeds": one.of.seeds(way),
                "chosen_from": [dict(figure) for figure in one.row.chosen_from],
                "value": one.outcome.value,
                "low": span.low,
                "high": span.high,
                "n": int(one.runs[0].summary["n"][metric.name]),
                "items_run": _items(one),
                "seconds_per_item": round(one.seconds / _items(one), 6),
                "cost": round(one.seconds / base.seconds * _items(base) / _items(one), 3) if base.seconds else None,
                "against": against,
                "verdict": "",
                "said": "",
                "test_looks": 1,
                "metrics": {name: one.mean("metrics", name) for name in one.runs[0].summary["metrics"]},
                "folder": f"runs/{one.runs[0].folder.name}",
                "folders": [f"runs/{run.folder.name}" for run in one.runs],
            }
        )
    return rows


def _items(one: Measured) -> int:
    """How many were asked, over all seeds."""
    return sum(int(run.summary["provenance"]["items"]) for run in one.runs)


def _strongest(one: Measured, some: Sequence[Measured]) -> str | None:
    """The control of a method with the best headline on test, greedy search apart; the first of those that tie."""
    own = [other for other in some if one.row.label in other.row.control_of and other.row.role != "baseline"]
    own = [other for other in own if not np.isnan(other.outcome.value)]
    best = max(own, key=lambda other: one.of.metric.better * other.outcome.value, default=None)
    return None if best is None else best.row.label


def _comparison(label: str, change: Change, alpha: float, family: int) -> dict[str, Any]:
    return {
        "label": label,
        "difference": change.value,
        "low": change.low,
        "high": change.high,
        "p": change.p,
        "p_holm": None,
        "p_bh": None,
        "effect": change.effect,
        "effect_name": change.effect_name,
        "standard_error": change.standard_error,
        "smallest_detectable": change.detectable(alpha),
        "smallest_detectable_corrected": change.detectable(alpha / max(family, 1)),
        "equivalence_p": change.equivalence_p,
        "equivalence_p_holm": None,
        "verdict": "",
    }


def _related(sets: Sequence[StudySet]) -> dict[str, list[str]]:
    """For each set those of the same model and some of the same data: who has seen the one has seen the other."""
    return {
        one.id: [
            other.id
            for other in sets
            if other.model.id == one.model.id and set(other.data_sha256.values()) & set(one.data_sha256.values())
        ]
        for one in sets
    }


def _judge(row: dict[str, Any], one: Measured, alpha: float) -> None:
    """Put a row's verdicts into it."""
    if one.row.role != "method":
        return
    metric, greedy, control = one.of.metric, row["against"]["greedy"], row["against"][_CONTROL]
    for change in filter(None, (greedy, control)):
        change["verdict"] = verdict(change, metric.better, alpha)
    row["verdict"] = of_row(greedy, control)
    row["said"] = sentence(row["verdict"], greedy, control, metric, one.of.entry.margin, row["test_looks"])


def _about_set(one: Measured, clusters: int) -> dict[str, Any]:
    metric, entry = one.of.metric, one.of.entry
    return {
        "id": one.of.id,
        "task": entry.id,
        "benchmark": entry.task,
        "title": one.of.benchmark.title,
        "model": one.of.model.id,
        "metric": metric.name,
        "metric_title": metric.title,
        "unit": "percent" if metric.share else "number",
        "unit_name": metric.unit,
        "digits": metric.digits,
        "higher_is_better": metric.better > 0,
        "chance": one.of.chance,
        "margin": entry.margin,
        "development": len(one.of.numbers.development),
        "test": len(one.of.numbers.test),
        "clusters": clusters,
        "data_sha256": one.of.data_sha256,
        "items_sha256": one.of.hashes,
    }
