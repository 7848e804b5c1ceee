"""`truthkit study`: models, methods and tasks in one file, run to a table with verdicts."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.cli.files import readable, writable_folder
from truthkit.errors import ArgumentError

if TYPE_CHECKING:
    from truthkit.study.timing import Forecast
_EPILOG = """\
a file:
  name = "Which decoder keeps to the instruction"
  margin = 0.02                       # differences below two points do not matter

  [[model]]
  model = "smollm2"     # bundled name, hub id or folder; dtype, batch_size and more may follow

  [[task]]
  task = "memotrap"                   # as of `truthkit eval`
  data = "${DATA}/memotrap"           # relative to the file; --set DATA=PATH or the environment says what DATA is
  limit = 400                         # test items at most

  [[method]]
  decoder = "cad"
  grid = { alpha = [0.5, 1, 2] }      # chosen on development; without a grid the options are as written

Every task is put to every model, and every method is asked there, beside greedy search and the controls that the
methods name, which are added by themselves. Each task's items are split by what they say: a fifth is for development,
where grids are decided, and the rest for test, which every row sees once. What each word of a verdict means, and the
formulas, are in the documentation under "A study".

The same command goes on where it was stopped, may run in several processes at once on one DIR, and does nothing twice:
once all is done, it only writes its pages again. DIR has study.json, the pages made from it, every run as a folder for
`truthkit compare` and `truthkit report`, and what was decided when.

examples:
  truthkit study study.toml --out runs/study --plan
  truthkit study study.toml --out runs/study --set DATA=data
  truthkit study more.toml --out runs/study --amend
"""


def add_parser(subparsers: Any) -> None:
    """Add `study` to the command line."""
    parser = subparsers.add_parser(
        "study",
        help="models, methods and tasks in one file, run to a table with verdicts",
        description="Run the study that a TOML file describes: split, choose on development, ask on test, compare.",
        epilog=_EPILOG,
    )
    parser.add_argument("file", type=Path, metavar="STUDY", help="the study's TOML file, or with --amend what it adds")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the study")
    parser.add_argument(
        "--plan", action="store_true", help="only say what would run, how long it would take, and how much disk"
    )
    parser.add_argument(
        "--amend", action="store_true", help="add the file's new entries to the study in DIR; what was decided stays"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="what ${NAME} is in the file's paths, relative to where you are; repeatable",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the study, or plan it, and name its pages."""
    readable(args.file, "STUDY")
    writable_folder(args.out, "--out")
    variables = dict(map(_variable, args.set))
    if args.plan and args.amend:
        raise ArgumentError("--plan and --amend: plan the whole file, or amend the study; give one of the two.")
    from truthkit.study.places import Places
    from truthkit.study.reading import read_study

    if not args.amend:
        read_study(args.file, Places(args.file.parent, variables))  # its mistakes are told before torch is imported
    from truthkit.study.conduct import conduct, decide, look_at
    from truthkit.study.pages import write_pages

    if args.plan:
        from truthkit.study.timing import forecast

        _print_plan(forecast(look_at(args.file, variables), args.out, _say))
        return 0
    decided = decide(args.file, args.out, variables, amend=args.amend)
    made = conduct(decided, args.out, _say, " ".join(["truthkit", *sys.argv[1:]]))
    _print_verdicts(made)
    for page in write_pages(args.out):
        print(page)
    return 0


def _variable(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not (name.isidentifier() and found and value):
        raise ArgumentError(f"--set is {text!r}; expected NAME=PATH, as DATA=data.")
    return name, str(Path(value).expanduser().absolute())


def _say(text: str) -> None:
    print(f"truthkit study: {text}", file=sys.stderr, flush=True)


def _print_plan(found: list[Forecast]) -> None:
    from rich.table import Table

    from truthkit.output import Output
    from truthkit.study.clock import clock
    from truthkit.study.timing import Forecast

    table = Table(title="to be run", title_justify="left")
    for column in ("set", "rows", "runs", "items", "time", "CPU time", "disk"):
        table.add_column(column, justify="left" if column == "set" else "right", no_wrap=column != "set")
    total = Forecast(
        "all", *(sum(getattr(one, name.name) for one in found) for name in fields(Forecast) if name.name != "set")
    )
    for one in (*found, total):
        counts = map(str, (one.rows, one.runs, one.items))
        table.add_row(one.set, *counts, clock(one.seconds), clock(one.cpu_seconds), f"{one.disk / 1e6:.1f} MB")
        if found and one is found[-1]:
            table.add_section()
    console = Output()
    console.print(table)
    console.print("time: as busy as the machine is now; CPU time: of all its processors together", markup=False)


def _print_verdicts(made: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from truthkit.evaluation.tasks import benchmark_of
    from truthkit.output import Output

    console = Output()
    for one in made["sets"]:
        metric = benchmark_of(one["benchmark"]).metric(one["metric"])
        title = f"{one['id']}: {metric.title} {metric.arrow}, {one['test']} test items"
        table = Table(title=Text(title), title_justify="left")
        for column in ("", metric.reading, "against greedy", "p, Holm", "verdict"):
            table.add_column(column, justify="left" if column in ("", "verdict") else "right")
        for row in (row for row in made["rows"] if row["set"] == one["id"]):
            change = row["against"].get("greedy")
            p = change and change["p_holm"]
            table.add_row(
                Text(row["label"]),
                metric.plain(row["value"]),
                metric.plain(change["difference"], sign="+") if change else "",
                "" if p is None else f"{p:.2g}",
                row["verdict"] or row["role"],
            )
        console.print(table)
