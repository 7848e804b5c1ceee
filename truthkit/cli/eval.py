"""`truthkit eval`: a benchmark on a model under a decoder, resumable, with controls."""

from __future__ import annotations

import argparse
import inspect
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.errors import ArgumentError

if TYPE_CHECKING:
    from truthkit.decoding.spec import DecoderSpec

_TASKS = ("truthfulqa", "pope", "chair", "mme")
_OPTIONS = ("images", "parser", "suffix", "protocol", "lemmatizer", "synonyms", "prompt")

_EPILOG = """\
tasks:
  truthfulqa   --data mc_task.json, TruthfulQA.csv or their folder; --protocol lm-eval, authors or dola
  pope         --data a question file or folder; --images FOLDER; --parser official, opera, vcd or strict; --suffix TEXT
  chair        --data folder with chair_gt_*.json or COCO's annotations, and synonyms.txt; --images FOLDER;
               --lemmatizer nltk or pattern; --prompt TEXT
  mme          --data folder with a question file per subtask; --images FOLDER

DIR/records.jsonl has a line per item, on the disk as soon as it is done: run the same command again after an
interruption, and it goes on. DIR/summary.json has the metrics with 95 % intervals, the settings, the checksums of the
data and the versions. With --controls the folder has a folder per run: the decoder's, greedy, and, where answers are
written, sampling at temperature 1 / (1 + alpha) and the plausibility constraint alone, which explain much of what
contrastive decoders gain. With several processes, `accelerate launch -m truthkit.cli eval ...` shares the items out.

examples:
  truthkit eval truthfulqa --data mc_task.json --decoder dola:beta=0 --out runs/dola --limit 100
  truthkit eval pope --data coco_pope_random.json --images val2014 --decoder ritual --sample --controls --out runs/r
"""


def add_parser(subparsers: Any) -> None:
    """Add `eval` to the command line."""
    parser = subparsers.add_parser(
        "eval",
        help="run a benchmark",
        description="Run a benchmark on a model under a decoder; interrupted runs go on where they were.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", metavar="TASK", choices=_TASKS, help=", ".join(_TASKS))
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="the benchmark's file or folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--model", metavar="M", help="hub id, folder or bundled name (default: the bundled model)")
    parser.add_argument("--adapter", metavar="PATH", help="a PEFT adapter, switched on in the model")
    parser.add_argument("--amateur", metavar="NAME|PATH", help="adapter or model that icd and lol contrast with")
    parser.add_argument("--dtype", metavar="DTYPE", help="float32, bfloat16, float16 (default: as in the checkpoint)")
    parser.add_argument("--device-map", metavar="MAP", help="auto: spread a large model over all devices")
    parser.add_argument("--decoder", default="greedy", metavar="NAME[:OPTIONS]", help="as in `truthkit generate`")
    parser.add_argument("--steer", action="append", metavar="FILE:STRENGTH", help="as in `truthkit generate`")
    parser.add_argument("--controls", action="store_true", help="run the controls too, each in a folder of DIR")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N items")
    parser.add_argument(
        "--batch-size", type=int, default=16, metavar="N", help="at most so many at a time (default: 16)"
    )
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="of written answers (default: the task's)")
    parser.add_argument("--sample", action="store_true", help="draw tokens, each item by its own seed")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="for --sample (default: 1)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="for --sample (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default: 0)")
    parser.add_argument("--no-sharing", action="store_true", help="read shared prompts anew for every choice")
    options = parser.add_argument_group("options of the tasks")
    options.add_argument("--images", type=Path, metavar="DIR", help="folder of the images")
    options.add_argument("--parser", metavar="NAME", help="how yes and no are read (default: official)")
    options.add_argument("--suffix", metavar="TEXT", help="put behind every question")
    options.add_argument("--protocol", metavar="NAME", help="of TruthfulQA (default: lm-eval)")
    options.add_argument("--lemmatizer", metavar="NAME", help="of CHAIR (default: nltk)")
    options.add_argument("--synonyms", type=Path, metavar="FILE", help="CHAIR's object names and synonyms")
    options.add_argument("--prompt", metavar="TEXT", help="what is asked of CHAIR's images")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the benchmark, print its scores, and name the folder."""
    from truthkit.cli.amateurs import amateur
    from truthkit.cli.rendering import Output, working
    from truthkit.decoding.spec import parse_spec
    from truthkit.evaluation.asking import Asking
    from truthkit.evaluation.runs import run as run_task
    from truthkit.evaluation.tasks import TASKS
    from truthkit.models import load
    from truthkit.steering.spec import parse_steer

    given = {name: value for name in _OPTIONS if (value := getattr(args, name)) is not None}
    accepted = inspect.signature(TASKS[args.task]).parameters.keys()
    for name in given.keys() - accepted:
        raise ArgumentError(f"--{name} is no option of {args.task}; its options are {', '.join(sorted(accepted))}.")
    if args.limit is not None and args.limit < 1:
        raise ArgumentError(f"--limit is {args.limit}; expected at least 1.")
    if args.batch_size < 1:
        raise ArgumentError(f"--batch-size is {args.batch_size}; expected at least 1.")
    spec, steers = parse_spec(args.decoder), [parse_steer(text) for text in args.steer or ()]
    if args.amateur and not spec.takes("amateur"):
        raise ArgumentError("--amateur is for decoders that contrast with one; use --decoder icd or --decoder lol.")
    task = TASKS[args.task](args.data, **given)
    with working("loading the model"):
        model, processor = load(args.model, dtype=args.dtype, adapter=args.adapter, device_map=args.device_map)
        supplied = {"amateur": amateur(args.amateur, model, args.dtype)} if args.amateur else {}

    console, name = Output(), args.model or "bundled model"
    name += f" + {args.adapter}" if args.adapter else ""
    name += "".join(f" steered by {text}" for text in args.steer or ())
    runs = _controls(spec, args, written=not task.items[0].choices) if args.controls else [(args.out, spec, {})]
    with ExitStack() as steering:
        for steer in steers:
            steering.enter_context(steer.build(model, processor))
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
                **{"sample": args.sample, "temperature": args.temperature, "top_p": args.top_p} | options,
            )
            summary = run_task(task, asking, folder, model_name=name, limit=args.limit)
            if "metrics" in summary:
                console.print(_table(f"{args.task}, {decoder.text}: {folder}", summary))
    return 0


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
