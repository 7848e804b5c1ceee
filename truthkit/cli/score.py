"""`truthkit score`: score answers that anyone's code wrote, without a model."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.cli.files import existing
from truthkit.cli.task_options import add_option, examples, read_options
from truthkit.errors import ArgumentError
from truthkit.evaluation.benchmark import Benchmark
from truthkit.evaluation.options import body, entry, summary
from truthkit.evaluation.running.records import CONFIG, SUMMARY
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
    again = "; or a run's folder, whose answers are scored again" if benchmark.score_run else ""
    task.add_argument("answers", metavar="ANSWERS", type=Path, help=answers + again)
    task.add_argument("--data", metavar="PATH", type=Path, help=data)
    task.set_defaults(needs_data=needed)
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
    again = any((args.answers / name).is_file() for name in (CONFIG, SUMMARY))
    if args.needs_data and args.data is None and not again:
        raise ArgumentError(f"--data is missing: truthkit score {args.task} needs it for answers in files.")
    for name, path in (("ANSWERS", args.answers), ("--data", args.data)):
        if path is not None:
            existing(path, name)
    if again and benchmark.score_run:
        score = _score_run(benchmark, benchmark.score_run, args, options)
    else:
        score = benchmark.score_files(args.answers, args.data, **options)
    parts = benchmark.parts(score) if benchmark.parts else {}
    if args.json:
        config = {**score.config, "answers": str(args.answers), "data": args.data and str(args.data)}
        found = {**_figures(score, args.seed), "units": benchmark.units(score.metrics)}
        found["config"] = config | {"seed": args.seed}
        if parts:
            found["categories"] = {name: _figures(part, args.seed) for name, part in parts.items()}
        print(json_text(found))
    else:
        _print(benchmark, score, parts, args.seed)
    return 0


def _score_run(
    benchmark: Benchmark, score_run: Callable[..., Score], args: argparse.Namespace, options: Mapping[str, Any]
) -> Score:
    """The answers of a finished run once more; what is not given is as it was in the run."""
    from truthkit.evaluation.report.compare import read_run
    from truthkit.files.reading import read_records

    finished = read_run(args.answers)
    config = finished.summary["config"]
    if config["task"] != benchmark.name:
        raise ArgumentError(f"{args.answers} is a run of {config['task']}; use truthkit score {config['task']}.")
    files = sorted(args.answers.glob("records*.jsonl"))
    records = [record.fields for file in files if file.stat().st_size for record in read_records(file)]
    choices = {record["key"]: record.get("choices") for record in records if "key" in record}
    lines = [{**item, "choices": choices.get(item["key"])} for item in finished.items]
    takes = inspect.signature(score_run).parameters
    if foreign := sorted(options.keys() - takes.keys()):
        option = f"--{foreign[0].replace('_', '-')}"
        raise ArgumentError(
            f"{option} is for files of answers; {args.answers} is a run of truthkit's own: leave it out."
        )
    defaults = {name: option.default for name, option in benchmark.file_options.items() if name in takes}
    recorded = {name: config[name] for name in defaults if name in config}
    return score_run(lines, args.data, **{**defaults, **recorded, **options})


def _figures(score: Score, seed: int) -> dict[str, Any]:
    return {"metrics": score.metrics, "intervals": score.intervals(seed=seed), "n": score.sizes}


def _print(benchmark: Benchmark, score: Score, parts: Mapping[str, Score], seed: int) -> None:
    print(", ".join(f"{name} {value}" for name, value in score.config.items()))
    sizes, intervals, width = score.sizes, score.intervals(seed=seed), max(map(len, score.metrics))
    metrics = {name: benchmark.metric(name) for name in score.metrics}
    print(f"\n  {'':{width}}  {'score':>9}   95 % interval, n")
    for name, value in score.metrics.items():
        low, high = map(metrics[name].plain, intervals[name])
        shown = f"{metrics[name].plain(value):>9}   [{low}, {high}]  {sizes[name]}  {metrics[name].reading}"
        print(f"  {name:{width}}  {shown}".rstrip())
    if parts:
        print(f"\n  {'':12}" + "".join(f"{name:>11}" for name in score.metrics))
        for name, part in parts.items():
            figures = (f"{metrics[metric].plain(value):>11}" for metric, value in part.metrics.items())
            print(f"  {name:12}" + "".join(figures))
