"""The benchmarks that there are: those of the folders and files here, and those that other packages bring.

A folder's `__init__`, or a file, that has a `Benchmark` is found by itself; so is one that an entry point of the group
`truthkit.tasks` names. Nothing has to be listed anywhere. All are imported for `truthkit eval --help`: keep them cheap,
import scorers inside functions.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from pathlib import Path

from truthkit.errors import ArgumentError
from truthkit.evaluation.benchmark import Benchmark
from truthkit.evaluation.running.task import Task
from truthkit.plugins import entry_points, left_out

GROUP = "truthkit.tasks"
"""The group of entry points that name a `Benchmark`."""

__all__ = ["GROUP", "benchmark_of", "benchmarks", "builtin"]


@cache
def benchmarks() -> dict[str, Benchmark]:
    """Every benchmark by its name on the command line; truthkit's own first.

    A plug-in that cannot be imported, or brings no benchmark of a name of its own, is left out with a warning.
    """
    found = dict(builtin())
    for point in entry_points(GROUP):
        try:
            one = point.load()
            if not isinstance(one, Benchmark):
                raise ArgumentError(f"{point.value} is a {type(one).__name__}; expected a Benchmark.")
            if one.name in found:
                raise ArgumentError(f"there is a benchmark {one.name!r} already; give it another name.")
        except Exception as error:
            left_out(point, error)
        except SystemExit:
            left_out(point, ImportError("its import ends the program"))
        else:
            found[one.name] = one
    return found


@cache
def builtin() -> dict[str, Benchmark]:
    """Truthkit's own benchmarks, by name."""
    modules = [import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    own = [value for module in modules for value in vars(module).values() if isinstance(value, Benchmark)]
    return {one.name: one for one in own}


def benchmark_of(task: str) -> Benchmark:
    """The benchmark of a run; one that declares nothing where it is of a package that isn't installed here."""
    return benchmarks().get(task) or Benchmark("absent", task, _absent)


def _absent(data: Path) -> Task:
    raise ArgumentError(f"the benchmark that asks {data} is not installed.")
