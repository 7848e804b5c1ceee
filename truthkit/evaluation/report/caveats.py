"""What keeps a section's runs from being compared as they stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from truthkit.evaluation.benchmark import Benchmark
from truthkit.evaluation.report.compare import Run
from truthkit.evaluation.report.words import counted, listed

_MEANT_TO_DIFFER = {"task", "model", "revision", "decoder", "sample", "temperature", "top_p"}
_FEW = 30
_LONGEST = 80  # characters of a setting's value


def caveats(runs: Mapping[str, Run], benchmark: Benchmark) -> list[str]:
    """Sentences, the gravest first; none where the runs can be compared.

    Args:
        runs: those of one section, by label.
        benchmark: theirs; it says which entries of their configs are no settings.
    """
    configs = {label: run.summary["config"] for label, run in runs.items()}
    provenance = {label: run.summary["provenance"] for label, run in runs.items()}
    found = []
    hashes = {label: _hash(about) for label, about in provenance.items()}
    found += _differing("the data they were run on (SHA-256)", hashes)
    for name in dict.fromkeys(name for config in configs.values() for name in config):
        if name not in _MEANT_TO_DIFFER.union(*(outcomes(run, benchmark) for run in runs.values())):
            found += _differing(name, {label: config.get(name) for label, config in configs.items()})
    for model in dict.fromkeys(config["model"] for config in configs.values()):
        revisions = {label: c.get("revision") for label, c in configs.items() if c["model"] == model}
        found += _differing(f"the revision of {model}", revisions)
    packages = dict.fromkeys(name for about in provenance.values() for name in about.get("versions", {}))
    for name in packages:
        found += _differing(
            f"the version of {name}",
            {label: about.get("versions", {}).get(name) for label, about in provenance.items()},
        )
    if hardware := _differing("hardware", {label: about.get("hardware") for label, about in provenance.items()}):
        found.append(f"{hardware[0]} Their costs cannot be compared.")
    for label, config in configs.items():
        found += [f"{label}: {text}" for text in not_counted(config)]
    for label, run in runs.items():
        found += [f"{label}: {text}" for text in _thin(run, benchmark)]
    units = {len({item["cluster"] for item in run.items}) for run in runs.values() if run.items}
    if units and min(units) < _FEW:
        few = min(units)
        there = "is only one image or question" if few == 1 else f"are only {few} different images or questions"
        found.append(
            f"There {there}; bootstrap intervals of fewer than {_FEW} are too narrow, and their p-values too small."
        )
    return found


def outcomes(run: Run, benchmark: Benchmark) -> set[str]:
    """The entries of a run's config that were found, not set."""
    return {*benchmark.outcomes, *run.summary.get("outcomes", ())}


def _thin(run: Run, benchmark: Benchmark) -> list[str]:
    """A sentence if some metrics of a run rest on few of its items."""
    sizes: Mapping[str, int] = run.summary.get("n", {})
    few = {name: n for name, n in sizes.items() if n < min(_FEW, len(run.items))}
    parts = [f"{benchmark.metric(name).title} on {n}" for name, n in few.items()]
    return [f"few items bear some metrics: {listed(parts)}."] if parts else []


def not_counted(config: Mapping[str, Any]) -> list[str]:
    """Sentences on the items of a run that got no score of their own; none where all did."""
    found = []
    if unparsed := config.get("unparsed"):
        found.append(f"{counted(unparsed, 'answer')} could not be read; they count as wrong.")
    if unscored := config.get("unscored"):
        found.append(
            f"{counted(unscored, 'question')} could not be scored, since all choices score the same (a plausibility "
            "constraint excludes them all, for one: turn it off with beta=0); they count as wrong."
        )
    return found


def _differing(what: str, values: Mapping[str, Any]) -> list[str]:
    """One sentence if not all values are the same."""
    groups: dict[str, list[str]] = {}
    for label, value in values.items():
        groups.setdefault(_shown(value), []).append(label)
    if len(groups) < 2:
        return []
    parts = [f"{value} for {listed(labels)}" for value, labels in groups.items()]
    return [f"The runs differ in {what}: {'; '.join(parts)}."]


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value) or "empty"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _hash(provenance: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {digest[:12]}" for name, digest in sorted(provenance.get("data_sha256", {}).items()))
