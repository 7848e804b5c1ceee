"""What the reference says of truthkit's benchmarks, from their objects: a new one is there without an edit."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module

from truthkit.evaluation.benchmark import Benchmark, Metric
from truthkit.evaluation.options import Option, summary
from truthkit.evaluation.tasks import builtin

BENCHMARKS_HERE = "<!-- benchmarks -->"
_BETTER = {1: "more", -1: "less", 0: "neither"}


def with_benchmarks(markdown: str) -> str:
    """A page with a section for each benchmark, and its folder's modules, where it asks for them."""
    if BENCHMARKS_HERE not in markdown:
        return markdown
    folders: dict[str, list[Benchmark]] = {}
    for one in builtin().values():
        folders.setdefault(one.task.__module__.rpartition(".")[0], []).append(one)
    parts = [part for folder, those in folders.items() for part in (*map(section, those), *_modules(folder))]
    return markdown.replace(BENCHMARKS_HERE, "\n\n".join(parts))


def section(benchmark: Benchmark) -> str:
    """Its title, how it is run, its metrics with their units and directions, and its options."""
    name = benchmark.name
    commands = f"`truthkit eval {name}`" + (f" · `truthkit score {name}`" if benchmark.score_files else "")
    parts = [f"## {benchmark.title}", summary(benchmark.task), commands]
    rows = [
        f"| `{one.name}` | {one.title.replace('*', '…')} | {_unit(one)} | {_BETTER[one.better]} | {_chance(one)} |"
        for one in benchmark.metrics
    ]
    parts.append("\n".join(["| metric | | in files | better | chance |", "| --- | --- | --- | --- | --- |", *rows]))
    for command, options in (("eval", benchmark.options), ("score", benchmark.file_options)):
        if options:
            parts.append(_options(f"option of `{command}`", options))
    return "\n\n".join(parts)


def _unit(metric: Metric) -> str:
    return "share, 0 to 1" if metric.share else metric.unit


def _chance(metric: Metric) -> str:
    """What guessing scores, as a report shows it."""
    if metric.chance is None:
        return ""
    if callable(metric.chance):
        return "by the data"
    return f"{metric.factor * metric.chance:g} {metric.shown_in}".rstrip()


def _options(head: str, options: Mapping[str, Option]) -> str:
    rows = [f"| `{one.flag}` | {one.help.replace('|', '¦')} |" for one in options.values()]
    return "\n".join([f"| {head} | |", "| --- | --- |", *rows])


def _modules(folder: str) -> list[str]:
    """The modules of a benchmark's folder, but for those with its object."""
    names = [found.name for found in pkgutil.iter_modules(import_module(folder).__path__)]
    shown = [f"{folder}.{name}" for name in names if not name.startswith("task")]
    return [f"::: {name}\n    options: {{show_root_full_path: true}}" for name in shown]
