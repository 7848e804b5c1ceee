"""`truthkit eval`: a benchmark on a model under a decoder, resumable, with controls."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.cli.model_options import add_model_options
from truthkit.cli.task_options import add_task_options, described_tasks, examples, given_options
from truthkit.errors import ArgumentError
from truthkit.evaluation.running.hub import fetch, is_hub
from truthkit.evaluation.tasks import TASKS

if TYPE_CHECKING:
    from truthkit.decoding.spec import DecoderSpec

_EPILOG = """\
tasks:
{tasks}

--data hub fetches the canonical data set once, --data hub:NAME another of the same layout, hub:FOLDER one that lies in
a folder, as `hf download NAME --repo-type dataset --local-dir FOLDER` puts it there. It becomes the benchmark's own
files in truthkit's cache ($TRUTHKIT_CACHE), which later runs read without a network.

Where choices are scored (truthfulqa, factor), a decoder's plausibility constraint gives all that is outside it a
probability of zero: turn it off, as in dola:beta=0, or say that it was on. In factcheck it holds for explanations only.

DIR/records.jsonl has a line per item, on the disk as soon as it is done: run the same command again after an
interruption, and it goes on. DIR/summary.json has the metrics with 95 % intervals, the settings, the checksums of the
data and the versions. With --controls the folder has a folder per run: the decoder's, greedy, and, where answers are
written, sampling at temperature 1 / (1 + alpha) and the plausibility constraint alone, which explain much of what
contrastive decoders gain. With several processes, `accelerate launch -m truthkit.cli eval ...` shares the items out.

examples:
{examples}
"""


def add_parser(subparsers: Any) -> None:
    """Add `eval` to the command line."""
    parser = subparsers.add_parser(
        "eval",
        help="run a benchmark",
        description="Run a benchmark on a model under a decoder; interrupted runs go on where they were.",
        epilog=_EPILOG.format(tasks=described_tasks(), examples="\n".join(f"  {example}" for example in examples())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", metavar="TASK", choices=list(TASKS), help=", ".join(TASKS))
    parser.add_argument(
        "--data", required=True, metavar="PATH", help="the benchmark's file or folder; hub or hub:NAME fetches it"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    add_model_options(parser)
    parser.add_argument("--amateur", metavar="NAME|PATH", help="adapter or model that icd and lol contrast with")
    parser.add_argument("--device-map", metavar="MAP", help="auto: spread a large model over all devices")
    parser.add_argument("--decoder", default="greedy", metavar="NAME[:OPTIONS]", help="as in `truthkit generate`")
    parser.add_argument("--steer", action="append", metavar="FILE:STRENGTH", help="as in `truthkit generate`")
    parser.add_argument("--controls", action="store_true", help="run the controls too, each in a folder of DIR")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N items")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="at most so many at a time (default: as many as the memory holds)"
    )
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="of written answers (default: the task's)")
    parser.add_argument("--sample", action="store_true", help="draw tokens, each item by its own seed")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="for --sample (default: 1)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="for --sample (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default: 0)")
    parser.add_argument("--no-sharing", action="store_true", help="read shared prompts anew for every choice")
    add_task_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the benchmark, print its scores, and name the folder."""
    from truthkit.cli.amateurs import amateur
    from truthkit.cli.rendering import working
    from truthkit.decoding.spec import parse_spec
    from truthkit.evaluation.running.asking import Asking
    from truthkit.evaluation.running.runs import run as run_task
    from truthkit.models import load
    from truthkit.output import Output
    from truthkit.steering.spec import parse_steer

    given = given_options(args.task, args)
    if args.limit is not None and args.limit < 1:
        raise ArgumentError(f"--limit is {args.limit}; expected at least 1.")
    if args.batch_size is not None and args.batch_size < 1:
        raise ArgumentError(f"--batch-size is {args.batch_size}; expected at least 1.")
    spec, steers = parse_spec(args.decoder), [parse_steer(text) for text in args.steer or ()]
    if args.amateur and not spec.takes("amateur"):
        raise ArgumentError("--amateur is for decoders that contrast with one; use --decoder icd or --decoder lol.")
    task = TASKS[args.task].task(_data(args), **given)
    if task.greedy and args.sample:
        raise ArgumentError(f"--sample is not for {args.task}, whose answers are the most probable ones.")
    with working("loading the model"):
        model, processor = load(args.model, dtype=args.dtype, adapter=args.adapter, device_map=args.device_map)
        supplied = {"amateur": amateur(args.amateur, model, args.dtype)} if args.amateur else {}

    console, name = Output(), args.model or "bundled model"
    name += f" + {args.adapter}" if args.adapter else ""
    name += "".join(f" steered by {text}" for text in args.steer or ())
    runs = (
        _controls(spec, args, written=bool(task.max_new_tokens) and not task.greedy)
        if args.controls
        else [(args.out, spec, {})]
    )
    with ExitStack() as steering:
        active = [steering.enter_context(steer.build(model, processor)) for steer in steers]
        for folder, decoder, options in runs:
            asking = Asking(
                model,
                processor,
                decoder,
                supplied if decoder.takes("amateur") else {},
                max_new_tokens=args.max_new_tokens or task.max_new_tokens,
                seed=args.seed,
                batch_size=args.batch_size,
                share_prefix=not args.no_sharing,
                steerings=active,
                **{"sample": args.sample, "temperature": args.temperature, "top_p": args.top_p} | options,
            )
            summary = run_task(task, asking, folder, model_name=name, limit=args.limit)
            if "metrics" in summary:
                console.print(_table(f"{args.task}, {decoder.text}: {folder}", summary))
                if "mauve" in summary["config"]:
                    console.print(f"MAUVE {summary['config']['mauve']:.4f}, features of {summary['config']['scorer']}")
                if "confusion" in summary["config"]:
                    console.print(_confusion(summary["config"]["confusion"]))
    return 0


def _data(args: argparse.Namespace) -> Path:
    """The files that `--data` stands for."""
    if not is_hub(args.data):
        return Path(args.data)
    if (data := getattr(TASKS[args.task], "HUB", None)) is None:
        raise ArgumentError(f"--data {args.data}: the data of {args.task} is not on the hub; pass its files.")
    from truthkit.cli.rendering import working

    with working(f"fetching {args.data.partition(':')[2] or data.name}"):
        return fetch(args.data, data)


def _controls(spec: DecoderSpec, args: argparse.Namespace, *, written: bool) -> list[tuple[Path, DecoderSpec, Any]]:
    """The decoder's run and its controls: folder, decoder, and what differs in the sampling."""
    from truthkit.decoding.spec import parse_spec

    greedy = parse_spec("greedy")
    runs: list[tuple[Path, DecoderSpec, Any]] = [(args.out / "decoder", spec, {})]
    runs.append((args.out / "greedy", greedy, {"sample": False}))
    if written:
        alpha = float(spec.options.get("alpha", 3.0 if spec.takes("transform") else 1.0))
        cooler = {"sample": True, "temperature": args.temperature / (1 + alpha)}
        runs.append((args.out / "sampling", greedy, {"sample": True}))
        runs.append((args.out / "sampling-cooler", greedy, cooler))
        beta = float(spec.options.get("beta", 0.1))
        runs.append((args.out / "constraint-alone", parse_spec(f"apc:beta={beta}"), {"sample": True}))
    return runs


def _table(title: str, summary: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, value in summary["metrics"].items():
        low, high = summary["intervals"][name]
        table.add_row(name, f"{value:.4f}", f"{low:.4f} to {high:.4f}")
    return table


def _confusion(counts: dict[str, dict[str, int]]) -> Any:
    """Gold labels down, verdicts across."""
    from rich.table import Table

    table = Table(title="claims by gold label (rows) and verdict", title_justify="left")
    table.add_column("")
    said = [
        label for label in next(iter(counts.values())) if any(row[label] for row in counts.values()) or label in counts
    ]
    for label in said:
        table.add_column(label, justify="right")
    for gold, row in counts.items():
        table.add_row(gold, *(str(row[label]) for label in said))
    return table
