"""`truthkit report`: runs of benchmarks as a page, Markdown or a picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError

_EPILOG = """\
DIR is the folder of a run of `truthkit eval`, or one with runs below it. Runs of one task on the same data are put side
by side: metrics with intervals and chance, paired tests against the baseline, quality against cost, yes ratios,
categories, items whose answers flipped, with their images, and all items to browse and filter.

The ending of FILE says what is written: .html is one self-contained page without scripts; .md is for a repository or an
issue; .png, .svg and .pdf are the charts alone (they need truthkit[plots]).

examples:
  truthkit report runs/ritual --out report.html
  truthkit report runs/greedy runs/vcd runs/ritual --baseline runs/greedy --out report.html --out report.md
"""


def add_parser(subparsers: Any) -> None:
    """Add `report` to the command line."""
    parser = subparsers.add_parser(
        "report",
        help="runs of benchmarks as a page, Markdown or a picture",
        description="Put finished runs of `truthkit eval` side by side, with intervals and paired tests.",
        epilog=_EPILOG,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a run, or a folder with runs")
    parser.add_argument(
        "--out", action="append", type=Path, required=True, metavar="FILE", help="what to write; may be given again"
    )
    parser.add_argument(
        "--baseline",
        metavar="RUN",
        help="what the others are tested against, a name as the report shows it or a folder "
        "(default: the greedy run, else the first)",
    )
    parser.add_argument("--flips", type=int, default=12, metavar="N", help="at most so many flipped items per task")
    parser.add_argument(
        "--items",
        type=int,
        metavar="N",
        help="at most so many items to browse, flipped ones first (default: all)",
    )
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="where the images are (default: where the runs found them)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the report, and say what is in it."""
    from truthkit.cli.rendering import working
    from truthkit.evaluation.report import gather, write_report
    from truthkit.evaluation.report.words import counted
    from truthkit.evaluation.report.writing import check_path

    if args.flips < 0:
        raise ArgumentError(f"--flips is {args.flips}; expected 0 or more.")
    if args.items is not None and args.items < 0:
        raise ArgumentError(f"--items is {args.items}; expected 0 or more.")
    for path in args.out:
        check_path(path)
    with working("comparing the runs"):
        report = gather(args.folders, baseline=args.baseline, flips=args.flips, items=args.items, images=args.images)
    for path in args.out:
        write_report(report, path)
        print(path)
    caveats = sum(len(section.caveats) for section in report.sections) + len(report.notes)
    warned = f"; it carries {counted(caveats, 'warning')}" if caveats else ""
    print(f"{counted(report.runs, 'run')} in {counted(len(report.sections), 'section')}{warned}")
    return 0
