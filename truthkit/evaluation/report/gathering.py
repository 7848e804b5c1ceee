"""From folders of runs to what a report says about them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.evaluation.benchmark import Benchmark
from truthkit.evaluation.report.baselines import is_unmodified, references
from truthkit.evaluation.report.caveats import caveats
from truthkit.evaluation.report.compare import Comparison, Run, compare
from truthkit.evaluation.report.contents import Entry, Estimate, Report, Section, Test
from truthkit.evaluation.report.cost import seconds_per_item
from truthkit.evaluation.report.finding import find_runs
from truthkit.evaluation.report.flips import all_asked, choose_flips
from truthkit.evaluation.report.labels import label_runs
from truthkit.evaluation.report.rescore import rescore
from truthkit.evaluation.report.words import counted
from truthkit.evaluation.tasks import benchmark_of
from truthkit.statistics.intervals import FloatArray, Interval, bootstrap, holm, ratio


def gather(
    folders: Sequence[Path],
    *,
    baseline: str | None = None,
    flips: int = 12,
    items: int | None = None,
    images: Path | None = None,
) -> Report:
    """Read runs and compare them.

    Runs of one task on data of the same names make a section.

    Args:
        folders: of runs, or with runs below them.
        baseline: what the others are tested against: a run's name, or its folder. By default the greedy run of the
            same model, else the section's first.
        flips: at most so many flipped items for each section.
        items: at most so many to browse for each section, flipped ones first; all by default.
        images: where the images are, if no longer where the runs found them.

    Raises:
        NotAvailableError: a folder that is missing, or has no finished run.
        ArgumentError: a folder with something else in it; a baseline that is none of the runs, or several of one model.
    """
    if flips < 0:
        raise ArgumentError(f"flips is {flips}; expected 0 or more.")
    if items is not None and items < 0:
        raise ArgumentError(f"items is {items}; expected 0 or more.")
    if images is not None and not images.is_dir():
        raise NotAvailableError(f"images is {str(images)!r}; there is no such folder.")
    runs, notes = find_runs(folders)
    groups: dict[tuple[str, tuple[str, ...]], list[Run]] = {}
    for run in runs:
        data = tuple(sorted(run.summary["provenance"].get("data_sha256", {})))
        groups.setdefault((run.summary["config"]["task"], data), []).append(run)
    tasks = [task for task, _ in groups]
    chosen = references(list(groups.values()), baseline)
    sections = []
    for ((task, names), members), against in zip(groups.items(), chosen, strict=True):
        suffix = f": {', '.join(names)}" if tasks.count(task) > 1 else ""
        sections.append(_section(benchmark_of(task), suffix, members, against, flips, items, images))
    return Report(sections, notes)


def _section(
    benchmark: Benchmark,
    suffix: str,
    runs: Sequence[Run],
    against: Sequence[int | None],
    limit: int,
    listed: int | None,
    images: Path | None,
) -> Section:
    """These runs; `against` has for each the number of the one that it is tested against."""
    baselines = {i for i, other in enumerate(against) if other is None}
    models = list(dict.fromkeys(_model(runs[i]) for i in sorted(range(len(runs)), key=lambda i: i not in baselines)))
    order = sorted(range(len(runs)), key=lambda i: (models.index(_model(runs[i])), i not in against, i))
    labels = dict(zip(order, label_runs([runs[i] for i in order]), strict=True))
    headline = _headline(runs[order[0]])
    found = caveats({labels[i]: runs[i] for i in order}, benchmark)
    if len(runs) > 1 and not is_unmodified(runs[order[0]]):
        found.append(f"The baseline is {labels[order[0]]}: no greedy run of the unmodified model is among them.")
    tested: dict[int, tuple[int, Comparison]] = {}
    for i in order:
        if (other := against[i]) is None:
            continue
        names = labels[i], labels[other]
        try:
            comparison = compare(runs[other], runs[i])
        except ArgumentError as error:
            found.append(f"{names[0]} is not tested against {names[1]}: {error}")
            continue
        if headline not in comparison.changes:
            found.append(f"{names[0]} is not tested against {names[1]}: their items do not say their {headline}.")
            continue
        tested[i] = other, comparison
        sizes = [len(runs[number].items) for number in (i, other)]
        if comparison.shared < max(sizes):
            found.append(
                f"{names[0]} and {names[1]} have {counted(comparison.shared, 'item')} in common, of {sizes[0]:,} and "
                f"{sizes[1]:,}; they are tested on {'that' if comparison.shared == 1 else 'those'}."
            )
    adjusted = holm([comparison.changes[headline].p for _, comparison in tested.values()])
    tests = {
        i: Test(labels[other], comparison.changes[headline], p, comparison)
        for (i, (other, comparison)), p in zip(tested.items(), adjusted, strict=True)
    }
    entries = [_entry(runs[i], labels[i], headline, tests.get(i)) for i in order]
    _fill(entries, benchmark)
    runs_items = {labels[i]: runs[i].items for i in order}
    changed = {labels[i]: (comparison.gained, comparison.lost) for i, (_, comparison) in tested.items()}
    return Section(
        benchmark.title + suffix,
        headline,
        benchmark,
        entries,
        _yes(runs[order[0]], "label"),
        found,
        choose_flips(changed, runs_items, limit, images),
        len({pair[0]["key"] for both in changed.values() for pairs in both for pair in pairs}),
        all_asked(runs_items, listed, images),
    )


def _entry(run: Run, label: str, headline: str, test: Test | None) -> Entry:
    metrics = {
        name: Estimate(value, _known(Interval(*run.summary["intervals"][name])))
        for name, value in run.summary["metrics"].items()
    }
    cost = seconds_per_item(run)
    return Entry(
        run,
        label,
        metrics,
        None if cost is None else Estimate(*cost),
        _yes(run, "prediction"),
        _categories(run, headline, metrics),
        test,
    )


def _fill(entries: Sequence[Entry], benchmark: Benchmark) -> None:
    """Give entries the metrics of others that they have under another name; see `Metric.otherwise`."""
    for name in dict.fromkeys(name for entry in entries for name in entry.metrics):
        same = benchmark.metric(name).otherwise
        for entry in entries:
            if name not in entry.metrics and same in entry.metrics:
                entry.metrics[name] = entry.metrics[same]


def _categories(run: Run, headline: str, metrics: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """The headline metric of every category, or the category's own metric; empty if there are not two."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for item in run.items:
        if item.get("category") is not None:
            groups.setdefault(str(item["category"]), []).append(item)
    if len(groups) < 2:
        return {}
    found = {}
    for name, items in groups.items():
        if name in metrics:
            found[name] = metrics[name]
            continue
        with suppress(ArgumentError):  # items of a task that can only be scored as a whole
            score = rescore(items, run.summary["config"])
            if headline in score.metrics:
                found[name] = Estimate(score.metrics[headline], _known(score.intervals()[headline]))
    return found


def _yes(run: Run, field: str) -> Estimate | None:
    """The share of yes in this field of yes/no items; of the labels, and of answers read as neither, too."""
    if not run.items or not all(item.get("label") in ("yes", "no") and field in item for item in run.items):
        return None
    counts = np.array([(1.0, item[field] == "yes") for item in run.items])
    interval = bootstrap(counts, _share, [item["cluster"] for item in run.items])["share"]
    return Estimate(float(counts[:, 1].mean()), _known(interval))


def _known(interval: Interval) -> Interval | None:
    """None for one that is not, as of one image."""
    return interval if math.isfinite(interval.low) else None


def _share(totals: FloatArray) -> Mapping[str, FloatArray]:
    return {"share": ratio(totals[..., 1], totals[..., 0])}


def _headline(run: Run) -> str:
    """The metric that the summary names; those of earlier versions name none, and put it first or nearly so."""
    metrics = run.summary["metrics"]
    named = run.summary.get("headline")
    return named if isinstance(named, str) and named in metrics else str(next(iter(metrics)))


def _model(run: Run) -> str:
    return str(run.summary["config"]["model"])
