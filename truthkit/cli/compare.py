"""`truthkit compare`: two runs of a benchmark, item by item."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError

_EPILOG = """\
Differences are B minus A with paired bootstrap intervals over images or questions; right and wrong answers are tested
by McNemar's exact test. Shares are in percent, their differences in percentage points.

example:
  truthkit compare runs/ritual/greedy runs/ritual/decoder --show 10
"""


def add_parser(subparsers: Any) -> None:
    """Add `compare` to the command line."""
    parser = subparsers.add_parser(
        "compare",
        help="two runs of a benchmark, with paired tests",
        description="Compare two runs of `truthkit eval` over the same items.",
        epilog=_EPILOG,
    )
    parser.add_argument("before", type=Path, metavar="A", help="folder of the one run")
    parser.add_argument("after", type=Path, metavar="B", help="folder of the other")
    parser.add_argument("--show", type=int, default=5, metavar="N", help="items gained and lost to show")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the differences, and items that flipped."""
    if args.show < 0:
        raise ArgumentError(f"--show is {args.show}; expected 0 or more.")
    from rich.table import Table
    from rich.text import Text

    from truthkit.evaluation.report.compare import compare, read_run
    from truthkit.evaluation.report.flips import said
    from truthkit.evaluation.tasks import benchmark_of
    from truthkit.output import Output
    from truthkit.printable import printable

    before, after = read_run(args.before), read_run(args.after)
    found = compare(before, after)
    console = Output()
    table = Table(title=Text(f"{after.name} against {before.name}"), title_justify="left")
    for column in ("metric", "A", "B", "difference", "95 % interval", "p", ""):
        table.add_column(column, justify="right" if column not in ("metric", "") else "left")
    benchmark = benchmark_of(before.summary["config"]["task"])
    for name, change in found.changes.items():
        metric, value = benchmark.metric(name), found.before[name]
        values = [metric.plain(value), metric.plain(value + change.value), metric.plain(change.value, sign="+")]
        span = metric.span(change.low, change.high, sign="+")
        table.add_row(name, *values, span, f"{change.p:.3g}", metric.reading)
    console.print(table)
    if found.answers is not None:
        test = found.answers
        console.print(
            f"right only in B: {test.gained}, right only in A: {test.lost}; McNemar's exact test: p = {test.p:.3g}"
        )
    for title, pairs in (("right only in B", found.gained), ("right only in A", found.lost)):
        for one, other in pairs[: args.show]:
            console.print(Text(f"\n{title}: {printable(str(one.get('question', one['prompt'])))}", style="bold"))
            console.print(Text(f"  A: {printable(said(one))}\n  B: {printable(said(other))}"))
    return 0
