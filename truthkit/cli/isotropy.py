"""`truthkit isotropy`: how differently a model's token states point, layer by layer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.activations.passages import PASSAGES
from truthkit.cli.files import readable, writable
from truthkit.cli.model_options import add_place_options, check_model_options, placing
from truthkit.cli.parser import at_least
from truthkit.errors import ArgumentError
from truthkit.figures import ENDINGS, check_matplotlib
from truthkit.files.reading import read_records, read_texts
from truthkit.files.writing import json_text
from truthkit.steering.spec import parse_layers

if TYPE_CHECKING:
    from truthkit.activations.modality_gap import ModalityGap
    from truthkit.statistics.score import Score

_EPILOG = """\
Isotropy is the mean over texts of 1 - the mean cosine between the states of different tokens of a text. "final" is
after the final norm: the states that contrastive search compares, and those of the paper's figures (GPT-2 0.10,
GPT-2-large 0.70; arXiv 2210.14140). Intervals resample texts.

FILE has a text per line; or, by its ending, is .json or .jsonl with texts or objects with a field "text", or a .csv,
.tsv or .xlsx with such a column. Without --texts a few passages are read that come with truthkit.

With --pairs, an image-text model's states of images are held against those of their captions, too: the gap between
their means, alignment and uniformity (arXiv 2203.02053, 2005.10242). FILE has records with "image", a path relative to
the file's folder, and "text" or "caption"; or it is the word scenes, for pictures that are drawn by truthkit. Beside
the gap stands what a split of the same states by coins gives, and beside the alignment that with captions of others.

examples:
  truthkit isotropy
  truthkit isotropy openai-community/gpt2 --texts wiki.txt --limit 500 --plot isotropy.png
  truthkit isotropy scene-vlm --pairs scenes --gap-plot gap.png
"""

SCENES = "scenes"
_SCENES = 64
"""How many are drawn."""


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
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="only the first N texts, and N pairs")
    parser.add_argument("--pairs", metavar="FILE", help="images with captions: measure the gap between both, see below")
    parser.add_argument("--layers", metavar="L", help="as 10, 10+12+-1 or 8-20 (default: all)")
    parser.add_argument("--max-tokens", type=at_least(1), default=256, metavar="N", help="of a text")
    parser.add_argument("--token-budget", type=at_least(1), default=2048, metavar="N", help="tokens per forward")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it: .png, .svg or .pdf")
    parser.add_argument("--gap-plot", type=Path, metavar="FILE", help="draw what --pairs measures")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read the texts, and print a line per layer."""
    check_model_options(args)
    for path, option in ((args.plot, "--plot"), (args.gap_plot, "--gap-plot")):
        if path is not None:
            writable(path, option, ENDINGS)
            check_matplotlib()
    if args.gap_plot is not None and args.pairs is None:
        raise ArgumentError("--gap-plot draws what --pairs measures; pass --pairs FILE, or --pairs scenes.")
    pairs = None if args.pairs is None else _pairs(args.pairs, args.limit)
    texts = (read_texts(args.texts, "text") if args.texts else list(PASSAGES))[: args.limit]
    layers = parse_layers(args.layers) if args.layers else "all"

    from truthkit.activations.isotropy import isotropy, plot_isotropy
    from truthkit.activations.modality_gap import modality_gap, plot_gap
    from truthkit.cli.rendering import working
    from truthkit.models import load
    from truthkit.output import Output
    from truthkit.parallel import place

    with working("loading the model"):
        model, processor = load(
            args.model, revision=args.revision, dtype=args.dtype, adapter=args.adapter, **placing(args)
        )
    options: dict[str, Any] = {
        "layers": None if layers == "all" else layers,
        "max_tokens": args.max_tokens,
        "token_budget": args.token_budget,
        "progress": True,
    }
    found_gap = None if pairs is None else modality_gap(model, processor, pairs, **options)
    score = isotropy(model, processor, texts, **options)
    name = (args.model or "bundled model") + (f" + {args.adapter}" if args.adapter else "")
    draws = args.tp is None or place()[0] == 0
    if args.plot is not None and draws:
        plot_isotropy({name: score}, args.plot)
    if found_gap is not None and args.gap_plot is not None and draws:
        plot_gap(found_gap, args.gap_plot, title=f"{name}: {found_gap.config['pairs']} images and captions")
    if args.json:
        intervals = {metric: list(interval) for metric, interval in score.intervals().items()}
        found = {"model": name, "isotropy": score.metrics, "intervals": intervals, "config": score.config}
        if found_gap is not None:
            found["modality_gap"] = {
                "metrics": {f"layer_{layer}": one for layer, one in found_gap.metrics.items()},
                "intervals": {
                    f"layer_{layer}": {measure: list(ends) for measure, ends in one.items()}
                    for layer, one in found_gap.intervals.items()
                },
                "p": {f"layer_{layer}": p for layer, p in found_gap.p.items()},
                "config": found_gap.config,
            }
        print(json_text(found))
        return 0
    console = Output()
    console.print(_table(name, score))
    if found_gap is not None:
        console.print(_gap_table(name, found_gap))
    for path in (args.plot, args.gap_plot):
        if path is not None:
            console.print(f"plot: {path}", soft_wrap=True, markup=False)
    return 0


def _pairs(source: str, limit: int | None) -> list[tuple[Any, str]]:
    """Images, or their paths, and captions."""
    if source == SCENES:
        from random import Random

        from truthkit.scenes.questions import caption, held_out
        from truthkit.scenes.render import render

        draw = Random("captions of the gap")
        return [(render(scene), caption(scene, draw)) for scene in held_out(limit or _SCENES)]
    path = readable(source, "--pairs")
    records = read_records(path)[:limit]
    return [(path.parent / record.text("image"), record.text("text", "caption")) for record in records]


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


def _gap_table(name: str, found: ModalityGap) -> Any:
    from rich.table import Table
    from rich.text import Text

    title = f"gap between images and captions in {name}: {found.config['pairs']} pairs"
    table = Table(title=Text(title), title_justify="left")
    columns = {
        "gap": "gap",
        "gap_random": "coins",
        "alignment": "aligned",
        "alignment_others": "others",
        "uniformity_images": "uniform:\nimages",
        "uniformity_texts": "captions",
    }
    for column in ("layer", *columns.values()):
        table.add_column(column, justify="right")
    for layer, metrics in found.metrics.items():
        low, high = found.intervals[layer]["gap"]
        cells = [f"{metrics[measure]:.3f}" for measure in columns]
        cells[0] = f"{metrics['gap']:.2f} [{low:.2f}, {high:.2f}]"
        table.add_row(str(layer), *cells)
    return table
