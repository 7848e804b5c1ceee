"""`truthkit isotropy`: how differently a model's token states point, layer by layer."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.activations.passages import PASSAGES
from truthkit.cli.files import writable
from truthkit.cli.model_options import add_place_options, check_model_options, placing
from truthkit.cli.parser import at_least
from truthkit.figures import ENDINGS, check_matplotlib
from truthkit.files.reading import read_texts
from truthkit.files.writing import json_text
from truthkit.steering.spec import parse_layers

if TYPE_CHECKING:
    from truthkit.statistics.score import Score

_EPILOG = """\
Isotropy is the mean over texts of 1 - the mean cosine between the states of different tokens of a text. "final" is
after the final norm: the states that contrastive search compares, and those of the paper's figures (GPT-2 0.10,
GPT-2-large 0.70; arXiv 2210.14140). Intervals resample texts.

FILE has a text per line; or, by its ending, is .json or .jsonl with texts or objects with a field "text", or a .csv,
.tsv or .xlsx with such a column. Without --texts a few passages are read that come with truthkit.

examples:
  truthkit isotropy
  truthkit isotropy openai-community/gpt2 --texts wiki.txt --limit 500 --plot isotropy.png
"""


def add_parser(subparsers: Any) -> None:
    """Add `isotropy` to the command line."""
    parser = subparsers.add_parser(
        "isotropy",
        help="how differently a model's token states point, layer by layer",
        description="Measure the isotropy of a model's token states, layer by layer.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="hub id, folder or bundled name (default: the bundled model)"
    )
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of a model on the hub (default: main)")
    parser.add_argument("--adapter", metavar="PATH", help="a PEFT adapter, switched on in the model")
    parser.add_argument("--dtype", metavar="DTYPE", help="float32, bfloat16, float16 (default: as in the checkpoint)")
    add_place_options(parser)
    parser.add_argument("--texts", type=Path, metavar="FILE", help="what is read, see below")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="only the first N texts")
    parser.add_argument("--layers", metavar="L", help="as 10, 10+12+-1 or 8-20 (default: all)")
    parser.add_argument("--max-tokens", type=at_least(1), default=256, metavar="N", help="of a text")
    parser.add_argument("--token-budget", type=at_least(1), default=2048, metavar="N", help="tokens per forward")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it: .png, .svg or .pdf")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read the texts, and print a line per layer."""
    check_model_options(args)
    if args.plot is not None:
        writable(args.plot, "--plot", ENDINGS)
        check_matplotlib()
    texts = (read_texts(args.texts, "text") if args.texts else list(PASSAGES))[: args.limit]
    layers = parse_layers(args.layers) if args.layers else "all"

    from truthkit.activations.isotropy import isotropy, plot_isotropy
    from truthkit.cli.rendering import working
    from truthkit.models import load
    from truthkit.output import Output
    from truthkit.parallel import place

    with working("loading the model"):
        model, processor = load(
            args.model, revision=args.revision, dtype=args.dtype, adapter=args.adapter, **placing(args)
        )
    score = isotropy(
        model,
        processor,
        texts,
        layers=None if layers == "all" else layers,
        max_tokens=args.max_tokens,
        token_budget=args.token_budget,
        progress=sys.stderr.isatty(),
    )
    name = (args.model or "bundled model") + (f" + {args.adapter}" if args.adapter else "")
    if args.plot is not None and (args.tp is None or place()[0] == 0):
        plot_isotropy({name: score}, args.plot)
    if args.json:
        intervals = {metric: list(interval) for metric, interval in score.intervals().items()}
        found = {"model": name, "isotropy": score.metrics, "intervals": intervals, "config": score.config}
        print(json_text(found))
        return 0
    console = Output()
    console.print(_table(name, score))
    if args.plot is not None:
        console.print(f"plot: {args.plot}", soft_wrap=True, markup=False)
    return 0


def _table(name: str, score: Score) -> Any:
    from rich.table import Table
    from rich.text import Text

    config = score.config
    skipped = f", {config['skipped']} too short" if config["skipped"] else ""
    title = f"isotropy of {name}: {config['texts']} texts of up to {config['max_tokens']} tokens{skipped}"
    table = Table(title=Text(title), title_justify="left")
    for column in ("layer", "isotropy", "95 % interval"):
        table.add_column(column, justify="right")
    intervals = score.intervals()
    for metric, value in score.metrics.items():
        low, high = intervals[metric]
        table.add_row(metric.removeprefix("layer_"), f"{value:.4f}", f"{low:.4f} to {high:.4f}")
    return table
