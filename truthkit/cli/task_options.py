"""The options of `truthkit eval`'s and `truthkit score`'s benchmarks, from their functions."""

from __future__ import annotations

import argparse
import textwrap
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from truthkit.errors import ArgumentError
from truthkit.evaluation.benchmark import Benchmark
from truthkit.evaluation.options import Option, entry, summary
from truthkit.evaluation.tasks import benchmarks


def add_task_options(parser: argparse.ArgumentParser) -> None:
    """Add every option that some benchmark has; those that several have once, and read by the one that is run."""
    group = parser.add_argument_group("options of the tasks")
    owners: dict[str, dict[str, Option]] = {}
    for task, benchmark in benchmarks().items():
        for name, option in benchmark.options.items():
            owners.setdefault(name, {})[task] = option
    for options in owners.values():
        helps: dict[str, list[str]] = {}
        for task, option in options.items():
            helps.setdefault(option.help, []).append(task)
        text = "; ".join(f"{', '.join(tasks)}: {said}" for said, tasks in helps.items())
        try:
            add_option(group, next(iter(options.values())), text)
        except argparse.ArgumentError as error:
            warnings.warn(f"an option of {', '.join(options)} left out: {error}", stacklevel=2)


def add_option(parser: argparse._ActionsContainer, option: Option, text: str) -> None:
    """Add one option; what is typed stays text until `given_options` reads it."""
    form: dict[str, Any] = {"metavar": option.metavar} if option.kind is not bool else {}
    if option.kind is bool:
        form["action"] = argparse.BooleanOptionalAction
    parser.add_argument(option.flag, dest=option.name, default=None, help=text.replace("%", "%%"), **form)


def given_options(benchmark: Benchmark, args: argparse.Namespace) -> dict[str, Any]:
    """The options of a benchmark that were given to `truthkit eval`, read.

    Raises:
        ArgumentError: one was given that belongs to others, or has a value that it cannot have.
    """
    everything = {name: option for other in benchmarks().values() for name, option in other.options.items()}
    for name in sorted(everything.keys() - benchmark.options.keys()):
        if getattr(args, name, None) is not None:
            listed = ", ".join(option.flag for option in benchmark.options.values()) or "none"
            raise ArgumentError(f"{everything[name].flag} is no option of {benchmark.name}; its options are {listed}.")
    return read_options(benchmark.options, args)


def read_options(options: Mapping[str, Option], args: argparse.Namespace) -> dict[str, Any]:
    """The values of the options that were given."""
    given = {name: getattr(args, name, None) for name in options}
    return {name: options[name].read(value) for name, value in given.items() if value is not None}


def described_tasks(width: int = 120) -> str:
    """What the help says of each benchmark: what it measures, its data, its options."""
    blocks = []
    for name, benchmark in benchmarks().items():
        lines = [summary(benchmark.task), f"--data: {entry(benchmark.task, 'data')}"]
        if options := " ".join(option.flag for option in benchmark.options.values()):
            lines.append(f"options: {options}")
        wrapped = [
            textwrap.fill(line, width, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False)
            for line in lines
        ]
        blocks.append("\n".join([f"  {name}", *wrapped]))
    return "\n".join(blocks)


def examples(command: str, among: Iterable[Benchmark]) -> list[str]:
    """Commands to copy, of these benchmarks: "eval" or "score"."""
    return [one for benchmark in among for one in benchmark.examples if one.startswith(f"truthkit {command} ")]
