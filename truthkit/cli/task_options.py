"""The options of `truthkit eval`'s tasks, from their functions: names, kinds and defaults from the signature, help from
the docstring.
"""

from __future__ import annotations

import argparse
import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError
from truthkit.evaluation.tasks import TASKS


def add_task_options(parser: argparse.ArgumentParser) -> None:
    """Add every option that some task has; those that several tasks have once."""
    group = parser.add_argument_group("options of the tasks")
    owners: dict[str, list[str]] = {}
    for task, module in TASKS.items():
        for name in _options(module.task):
            owners.setdefault(name, []).append(task)
    for name, tasks in owners.items():
        functions = {task: TASKS[task].task for task in tasks}
        kind = _kind(_options(functions[tasks[0]])[name].annotation)
        described = {task: _described(functions[task], name) for task in tasks}
        same = len(set(described.values())) == 1
        texts = [f"{', '.join(tasks)}: {described[tasks[0]]}"] if same else [f"{t}: {d}" for t, d in described.items()]
        form: dict[str, Any] = {"type": kind, "metavar": {Path: "PATH", int: "N"}.get(kind, "TEXT")}
        if kind is bool:
            form = {"action": argparse.BooleanOptionalAction}
        group.add_argument(
            f"--{name.replace('_', '-')}", default=None, help="; ".join(texts).replace("%", "%%"), **form
        )


def given_options(task: str, args: argparse.Namespace) -> dict[str, Any]:
    """The options of a task that were given.

    Raises:
        ArgumentError: one was given that belongs to other tasks.
    """
    everything = {name for module in TASKS.values() for name in _options(module.task)}
    given = {name: value for name in sorted(everything) if (value := getattr(args, name)) is not None}
    own = _options(TASKS[task].task)
    for name in given.keys() - own.keys():
        listed = ", ".join(f"--{option.replace('_', '-')}" for option in own) or "none"
        raise ArgumentError(f"--{name.replace('_', '-')} is no option of {task}; its options are {listed}.")
    return given


def described_tasks(width: int = 120) -> str:
    """What the help says of each task: what it measures, its data, its options."""
    blocks = []
    for name, module in TASKS.items():
        lines = [
            " ".join((inspect.getdoc(module.task) or "").partition("\n\n")[0].split()),
            f"--data: {_described(module.task, 'data')}",
        ]
        if options := " ".join(f"--{option.replace('_', '-')}" for option in _options(module.task)):
            lines.append(f"options: {options}")
        wrapped = [
            textwrap.fill(line, width, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False)
            for line in lines
        ]
        blocks.append("\n".join([f"  {name}", *wrapped]))
    return "\n".join(blocks)


def examples() -> list[str]:
    """Commands to copy, of every task."""
    return [example for module in TASKS.values() for example in module.EXAMPLES]


def _options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name: parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def _kind(annotation: Any) -> Any:
    """The type that an option's text becomes."""
    named = {"Path": Path, "str": str, "int": int, "bool": bool}
    kinds = [part.strip() for part in str(annotation).split("|")]
    return named[next(kind for kind in kinds if kind != "None")]


def _described(function: Callable[..., Any], name: str) -> str:
    """The entry of an argument in a docstring, on one line; with the default where it doesn't say one."""
    found = re.search(
        rf"^ {{4}}{name}: (.*?)(?=^ {{4}}\w|\Z)", inspect.getdoc(function) or "", re.MULTILINE | re.DOTALL
    )
    text = " ".join(found[1].split()) if found else ""
    parameter = inspect.signature(function).parameters[name]
    default = parameter.default
    if default is parameter.empty or default is None or isinstance(default, bool) or default == "" or "default" in text:
        return text
    return f"{text} (default: {default})"
