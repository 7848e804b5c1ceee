"""`truthkit eval`: a benchmark on a model under a decoder, resumable, with controls."""

from __future__ import annotations

import argparse
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from truthkit.cli.amateurs import check_amateur
from truthkit.cli.files import existing, writable_folder
from truthkit.cli.model_options import (
    add_model_options,
    add_steering_option,
    check_model_options,
    placing,
    steering_option,
)
from truthkit.cli.task_options import add_task_options, described_tasks, examples, given_options
from truthkit.errors import ArgumentError
from truthkit.evaluation.benchmark import Benchmark, Grid
from truthkit.evaluation.running.hub import fetch, is_hub
from truthkit.evaluation.running.item import check_context
from truthkit.evaluation.tasks import benchmarks

if TYPE_CHECKING:
    from truthkit.decoding.spec import DecoderSpec
    from truthkit.evaluation.running.task import Task
    from truthkit.steering.spec import SteerSpec

_EPILOG = """\
tasks:
{tasks}

--data hub fetches the canonical data set once, --data hub:NAME another of the same layout, hub:FOLDER one that lies in
a folder, as `hf download NAME --repo-type dataset --local-dir FOLDER` puts it there. It becomes the benchmark's own
files in truthkit's cache ($TRUTHKIT_CACHE), which later runs read without a network.

Where choices are scored, a decoder's plausibility constraint gives all that is outside it a probability of zero: turn
it off, as in dola:beta=0, or say that it was on.

DIR/records.jsonl has a line per item, on the disk as soon as it is done: run the same command again after an
interruption, and it goes on. DIR/summary.json has the metrics with 95 % intervals, the settings, the checksums of the
data and the versions. With --controls the folder has a folder per run: the decoder's, and those that an honest table
puts beside it: greedy, and, where answers are written, sampling, sampling at the lower temperature that the decoder's
formula comes near, and its plausibility constraint alone. They explain much of what contrastive decoders gain. With
several processes, `accelerate launch -m truthkit.cli eval ...` shares the items out. With --tp N so many processes hold
the model together, and count as one.

examples:
{examples}
"""


def add_parser(subparsers: Any) -> None:
    """Add `eval` to the command line."""
    parser = subparsers.add_parser(
        "eval",
        help="run a benchmark",
        description="Run a benchmark on a model under a decoder; interrupted runs go on where they were.",
        epilog=_epilog,
    )
    parser.add_argument("task", metavar="TASK", choices=list(benchmarks()), help=", ".join(benchmarks()))
    parser.add_argument(
        "--data", required=True, metavar="PATH", help="the benchmark's file or folder; hub or hub:NAME fetches it"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    add_model_options(parser)
    parser.add_argument("--amateur", metavar="NAME|PATH", help="adapter or model that icd and lol contrast with")
    parser.add_argument("--decoder", default="greedy", metavar="NAME[:OPTIONS]", help="as in `truthkit generate`")
    add_steering_option(parser, "as in `truthkit generate`")
    parser.add_argument("--controls", action="store_true", help="run the controls too, each in a folder of DIR")
    parser.add_argument("--limit", type=int, metavar="N", help="only N items, drawn by --seed")
    parser.add_argument("--first", type=int, metavar="N", help="only the first N items instead")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="at most so many at a time (default: as many as the memory holds)"
    )
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="of written answers (default: the task's)")
    parser.add_argument("--sample", action="store_true", help="draw tokens, each item by its own seed")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="for --sample")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="for --sample")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws, of tokens and of --limit")
    parser.add_argument("--no-sharing", action="store_true", help="read shared prompts anew for every choice")
    add_task_options(parser)
    parser.set_defaults(run=run)


def _epilog() -> str:
    shown = "\n".join(f"  {one}" for one in examples("eval", benchmarks().values()))
    return _EPILOG.format(tasks=described_tasks(), examples=shown)


class _Run(NamedTuple):
    """A decoder's run or a control's: its folder, and how tokens are drawn."""

    folder: Path
    decoder: DecoderSpec
    sample: bool
    temperature: float


def run(args: argparse.Namespace) -> int:
    """Run the benchmark, print its scores, and name the folder."""
    from truthkit.decoding.spec import parse_spec

    benchmark = benchmarks()[args.task]
    options = given_options(benchmark, args)
    _check_numbers(args)
    writable_folder(args.out, "--out")
    spec, steers = parse_spec(args.decoder), steering_option(args)
    if args.amateur and not spec.takes("amateur"):
        raise ArgumentError("--amateur is for decoders that contrast with one; use --decoder icd or --decoder lol.")
    if args.amateur:
        check_amateur(args.amateur)
    check_model_options(args)
    task = benchmark.task(_data(benchmark, args), **options)
    check_context(task.items, spec)
    sample = args.sample or spec.name == "sample"
    if task.greedy and sample:
        raise ArgumentError(f"--sample is not for {args.task}, whose answers are the most probable ones.")
    if any(item.choices for item in task.items) and not task.greedy:
        _warn_of_constraint(spec)
    runs = [_Run(args.out / "decoder" if args.controls else args.out, spec, sample, args.temperature)]
    if args.controls:
        runs += _controls(spec, args, written=bool(task.max_new_tokens) and not task.greedy)
    _ask(args, benchmark, task, runs, steers)
    return 0


def _check_numbers(args: argparse.Namespace) -> None:
    """Raise an `ArgumentError` for a number out of range."""
    if args.limit is not None and args.first is not None:
        raise ArgumentError("--limit draws items and --first takes the first ones; give one of the two.")
    for name in ("limit", "first", "batch_size", "max_new_tokens"):
        if (number := getattr(args, name)) is not None and number < 1:
            raise ArgumentError(f"--{name.replace('_', '-')} is {number}; expected at least 1.")
    if not args.temperature > 0:
        raise ArgumentError(f"--temperature is {args.temperature}; expected a number above 0.")
    if not 0 < args.top_p <= 1:
        raise ArgumentError(f"--top-p is {args.top_p}; expected a number in (0, 1].")


def _data(benchmark: Benchmark, args: argparse.Namespace) -> Path:
    """The files that `--data` stands for."""
    if not is_hub(args.data):
        return existing(args.data, "--data")
    if benchmark.hub is None:
        raise ArgumentError(f"--data {args.data}: the data of {args.task} is not on the hub; pass its files.")
    from truthkit.cli.rendering import working

    with working(f"fetching {args.data.partition(':')[2] or benchmark.hub.name}"):
        return fetch(args.data, benchmark.hub)


def _warn_of_constraint(spec: DecoderSpec) -> None:
    """Say before a run of given choices that a decoder would exclude most of them."""
    from truthkit.decoding.spec import parameters

    for part in spec.every:
        known = parameters(part.name)
        if "beta" in known and (beta := part.options.get("beta", known["beta"].default)):
            warnings.warn(
                f"--decoder {spec.text}: {part.name} has its plausibility constraint on (beta={beta:g}), which gives "
                "choices outside it a probability of zero; multiple choice wants beta=0.",
                stacklevel=2,
            )


def _controls(spec: DecoderSpec, args: argparse.Namespace, *, written: bool) -> list[_Run]:
    """The runs to put beside the decoder's; where nothing is written, those that draw nothing."""
    from truthkit.decoding.spec import parse_spec

    return [
        _Run(args.out / one.name, parse_spec(one.decoder), one.sample, args.temperature / one.cooler)
        for one in spec.controls()
        if written or not one.sample
    ]


def _ask(args: argparse.Namespace, benchmark: Benchmark, task: Task, runs: list[_Run], steers: list[SteerSpec]) -> None:
    """Load the model, run everything, and print what was found."""
    from truthkit.activations.hooks import Hooked
    from truthkit.cli.amateurs import amateur
    from truthkit.cli.rendering import working
    from truthkit.evaluation.report.caveats import not_counted
    from truthkit.evaluation.report.words import run_name
    from truthkit.evaluation.running.asking import Asking
    from truthkit.evaluation.running.runs import run as run_task
    from truthkit.models import load
    from truthkit.output import Output

    with working("loading the model"):
        model, processor = load(
            args.model, revision=args.revision, dtype=args.dtype, adapter=args.adapter, **placing(args)
        )
        supplied = {"amateur": amateur(args.amateur, model, args.dtype, placing(args))} if args.amateur else {}

    console, name = Output(), args.model or "bundled model"
    name += f" + {args.adapter}" if args.adapter else ""
    name += "".join(f" steered by {text}" for text in args.steer or ())
    with ExitStack() as steering:
        entered = [steering.enter_context(steer.build(model, processor)) for steer in steers]
        active = [one for one in entered if isinstance(one, Hooked)]  # what acts on tokens
        for folder, decoder, sample, temperature in runs:
            asking = Asking(
                model,
                processor,
                decoder,
                supplied if decoder.takes("amateur") else {},
                max_new_tokens=args.max_new_tokens or task.max_new_tokens,
                sample=sample,
                temperature=temperature,
                top_p=args.top_p,
                seed=args.seed,
                batch_size=args.batch_size,
                share_prefix=not args.no_sharing,
                steerings=active,
            )
            limit, first = args.limit or args.first, args.first is not None
            summary = run_task(task, asking, folder, model_name=name, limit=limit, first=first, units=benchmark.units)
            if "metrics" in summary:
                console.print(_table(f"{args.task}, {run_name(summary['config'])}: {folder}", benchmark, summary))
                for text in not_counted(summary["config"]):
                    console.print(text)
                for remark in benchmark.remarks(summary["config"]) if benchmark.remarks else ():
                    console.print(_grid(remark) if isinstance(remark, Grid) else remark)


def _table(title: str, benchmark: Benchmark, summary: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("n", justify="right")
    table.add_column("")
    for name, value in summary["metrics"].items():
        metric, n = benchmark.metric(name), str(summary["n"][name])
        table.add_row(name, metric.plain(value), metric.span(*summary["intervals"][name]), n, metric.reading)
    return table


def _grid(grid: Grid) -> Any:
    from rich.table import Table

    table = Table(title=grid.title, title_justify="left")
    table.add_column("")
    for head in grid.heads:
        table.add_column(head, justify="right")
    for row in grid.rows:
        table.add_row(*row)
    return table
