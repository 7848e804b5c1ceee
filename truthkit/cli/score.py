"""`truthkit score`: score answers that anyone's code wrote, without a model."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.cli.files import existing
from truthkit.cli.task_options import add_option, examples, read_options
from truthkit.errors import ArgumentError
from truthkit.evaluation.benchmark import Benchmark
from truthkit.evaluation.options import body, entry, summary
from truthkit.evaluation.tasks import benchmarks
from truthkit.files.writing import json_text

if TYPE_CHECKING:
    from truthkit.statistics.score import Score

_EPILOG = """\
`truthkit score TASK --help` shows the form of a task's files.

examples:
{examples}
"""


def add_parser(subparsers: Any) -> None:
    """Add `score` and its tasks to the command line."""
    scoring = [benchmark for benchmark in benchmarks().values() if benchmark.score_files]
    parser = subparsers.add_parser(
        "score",
        help="score answers that were made elsewhere",
        description="Score answers to a benchmark, whoever made them, as its reference scorer does; 95 % intervals.",
        epilog=lambda: _EPILOG.format(examples="\n".join(f"  {one}" for one in examples("score", scoring))),
    )
    tasks = parser.add_subparsers(title="tasks", dest="task", metavar="TASK", required=True)
    for benchmark in scoring:
        _add_task(tasks, benchmark)
    parser.set_defaults(run=run)


def _add_task(tasks: Any, benchmark: Benchmark) -> None:
    function = benchmark.score_files
    assert function is not None
    shown = "\n".join(f"  {one}" for one in examples("score", [benchmark]))
    task = tasks.add_parser(
        benchmark.name,
        help=summary(function).rstrip(".").replace("%", "%%"),
        description=summary(function).replace("%", "%%"),
        epilog="\n\n".join(filter(None, [body(function), shown and f"example:\n{shown}"])).replace("%", "%%"),
    )
    needed = inspect.signature(function).parameters["data"].default is inspect.Parameter.empty
    answers, data = (entry(function, name).replace("%", "%%") for name in ("answers", "data"))
    task.add_argument("answers", metavar="ANSWERS", type=Path, help=answers)
    task.add_argument("--data", metavar="PATH", type=Path, required=needed, help=data)
    task.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    task.add_argument("--seed", type=int, default=0, metavar="N", help="of the intervals' resampling")
    for option in benchmark.file_options.values():
        add_option(task, option, option.help)


def run(args: argparse.Namespace) -> int:
    """Score and print; 0 if it could be done."""
    benchmark = benchmarks()[args.task]
    assert benchmark.score_files is not None
    options = read_options(benchmark.file_options, args)
    if args.seed < 0:
        raise ArgumentError(f"--seed is {args.seed}; expected 0 or more.")
    for name, path in (("ANSWERS", args.answers), ("--data", args.data)):
        if path is not None:
            existing(path, name)
    score = benchmark.score_files(args.answers, args.data, **options)
    parts = benchmark.parts(score) if benchmark.parts else {}
    if args.json:
        config = {**score.config, "answers": str(args.answers), "data": args.data and str(args.data)}
        found = {**_figures(score, args.seed), "config": config | {"seed": args.seed}}
        if parts:
            found["categories"] = {name: _figures(part, args.seed) for name, part in parts.items()}
        print(json_text(found))
    else:
        _print(benchmark, score, parts, args.seed)
    return 0


def _figures(score: Score, seed: int) -> dict[str, Any]:
    return {"metrics": score.metrics, "intervals": score.intervals(seed=seed)}


def _print(benchmark: Benchmark, score: Score, parts: Mapping[str, Score], seed: int) -> None:
    print(", ".join(f"{name} {value}" for name, value in score.config.items()))
    intervals, width = score.intervals(seed=seed), max(map(len, score.metrics))
    metrics = {name: benchmark.metric(name) for name in score.metrics}
    print(f"\n  {'':{width}}  {'score':>9}   95 % interval")
    for name, value in score.metrics.items():
        low, high = map(metrics[name].plain, intervals[name])
        print(f"  {name:{width}}  {metrics[name].plain(value):>9}   [{low}, {high}]  {metrics[name].reading}".rstrip())
    if parts:
        print(f"\n  {'':12}" + "".join(f"{name:>11}" for name in score.metrics))
        for name, part in parts.items():
            figures = (f"{metrics[metric].plain(value):>11}" for metric, value in part.metrics.items())
            print(f"  {name:12}" + "".join(figures))
