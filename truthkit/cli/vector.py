"""`truthkit vector`: look at steering vectors, plot them, convert them, compare them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from truthkit.cli.files import readable, writable
from truthkit.cli.model_options import check_model_options
from truthkit.errors import ArgumentError
from truthkit.figures import ENDINGS
from truthkit.files.writing import json_text
from truthkit.steering.names import FORMATS

_EPILOG = """\
Vectors are read from .safetensors (truthkit), .gguf (llama.cpp, repeng), .pt (lm-evaluation-harness) and .npz (numpy).

examples:
  truthkit vector plot v.safetensors --out auc.png
  truthkit vector plot v.safetensors --text "The earth is flat." --layer 14 --out tokens.html
  truthkit vector export v.safetensors --out v.gguf
  truthkit vector compare style.safetensors substance.safetensors
  truthkit vector show v.safetensors
"""


_SITES = {"block": "the blocks' outputs", "heads": "the attention heads' outputs", "mlp": "the MLPs' outputs"}


def add_parser(subparsers: Any) -> None:
    """Add `vector` and its actions to the command line."""
    parser = subparsers.add_parser(
        "vector",
        help="show, plot, export and compare steering vectors",
        description="Show, plot, export and compare steering vectors.",
        epilog=_EPILOG,
    )
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="where a vector comes from, its norms and scores")
    show.add_argument("vector", metavar="FILE")
    show.add_argument("--json", action="store_true", help="print one JSON object instead of text")

    plot = actions.add_parser("plot", help="AUC by layer, strength against effect, or a text's tokens along the vector")
    plot.add_argument("vector", metavar="FILE")
    plot.add_argument("--out", metavar="FILE", required=True, help=".png, .svg or .pdf; .html too with --text")
    plot.add_argument("--trials", action="store_true", help="strength against effect and fluency, of extract --select")
    plot.add_argument("--text", metavar="TEXT", help="project each token of this text on the vector")
    plot.add_argument("--layer", type=int, metavar="N", help="with --text: the layer (default: that of the best AUC)")
    plot.add_argument("--model", metavar="M", help="with --text: the model (default: the bundled model)")

    export = actions.add_parser("export", help="write another format, told by the ending of --out")
    export.add_argument("vector", metavar="FILE")
    export.add_argument("--out", metavar="FILE", required=True, help=".gguf, .npz, .pt or .safetensors")
    export.add_argument("--layer", type=int, metavar="N", help="this layer only")
    export.add_argument("--strength", type=float, default=1.0, metavar="X", help="multiply by this")
    export.add_argument(
        "--model", metavar="M", help="for .pt: the model that will be steered (default: the bundled model)"
    )

    compare = actions.add_parser("compare", help="cosine and leakage between two vectors, layer by layer")
    compare.add_argument("vector", metavar="FILE")
    compare.add_argument("other", metavar="OTHER")
    compare.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do the action; 0 if it could be done."""
    if args.action == "plot" and args.layer is not None and args.text is None:
        raise ArgumentError("--layer goes with --text; the other plots show every layer.")
    actions = {"show": _show, "plot": _plot, "export": _export, "compare": _compare}
    for path in (args.vector, *([args.other] if args.action == "compare" else [])):
        _check_file(path)
    if "out" in args:
        writable(args.out, "--out", _endings(args))
    if "model" in args:
        check_model_options(args)
    actions[args.action](args)
    return 0


def _check_file(path: str) -> None:
    if (ending := Path(path).suffix) not in FORMATS and not Path(path).is_dir():
        raise ArgumentError(f"{path!r} ends in {ending!r}; expected one of {', '.join(FORMATS)}.")
    readable(path, "the vector")


def _endings(args: argparse.Namespace) -> tuple[str, ...]:
    """What `--out` may be: a vector, a plot, or a text's page."""
    return tuple(FORMATS) if args.action == "export" else ENDINGS if args.text is None else (*ENDINGS, ".html")


def _read(path: str) -> Any:
    from truthkit.steering.formats import read_vector

    return read_vector(path)


def _show(args: argparse.Namespace) -> None:
    vector = _read(args.vector)
    if args.json:
        about = {"layers": list(vector.layers), "layer_count": vector.layer_count, "features": vector.features}
        print(json_text({**about, "site": vector.site, "norms": vector.norms(), "provenance": vector.provenance}))
        return
    print(repr(vector))
    for name, value in vector.provenance.items():
        if name not in ("norms", "scores", "layers", "selection"):
            print(f"  {name}: {value if isinstance(value, str | int | float) else json.dumps(value)}")
    if selection := vector.provenance.get("selection"):
        chosen = (f"{name} {selection[name]:g}" for name in ("layer", "strength") if name in selection)
        print(f"  chosen: {', '.join(chosen)}")
    print("\n  layer      norm   held-out AUC [95 %]       p")
    for layer, norm in vector.norms().items():
        score = vector.scores.get(layer, {})
        whole = {"auc", "low", "high", "p"} <= score.keys()
        shown = f"{score['auc']:.3f} [{score['low']:.3f}, {score['high']:.3f}]  {score['p']:.3f}" if whole else "-"
        print(f"  {layer:5} {norm:9.3f}   {shown}")


def _plot(args: argparse.Namespace) -> None:
    from truthkit.steering import plots

    vector, out = _read(args.vector), Path(args.out)
    if args.text is None:
        (plots.plot_trials if args.trials else plots.plot_scores)(vector, out)
    else:
        from truthkit.models import load

        layer = vector.number(args.layer) if args.layer is not None else vector.best_layer()
        model, processor = load(args.model)
        tokens, values = plots.token_projections(model, processor, vector, args.text, layer=layer)
        facts = {
            "vector": f"{Path(args.vector).name}, at {_SITES[vector.site]}",
            "layer": f"{layer} of {vector.layer_count}, counted from 0",
            "made by": str(vector.provenance.get("method", "")),
            "model": args.model or "the bundled model",
        }
        known = {name: value for name, value in facts.items() if value}
        title = f"Tokens along {Path(args.vector).name}, layer {layer}"
        plots.plot_tokens(tokens, values, out, title=title, facts=known)
    print(out)


def _export(args: argparse.Namespace) -> None:
    from truthkit.steering import formats

    vector, out = _read(args.vector), Path(args.out)
    if args.layer is not None:
        vector = vector.at(args.layer)
    match FORMATS.get(out.suffix):
        case "gguf":
            formats.to_gguf(vector * args.strength if args.strength != 1 else vector, out)
        case "numpy":
            formats.to_numpy(vector * args.strength if args.strength != 1 else vector, out)
        case "truthkit":
            (vector * args.strength if args.strength != 1 else vector).save(out)
        case "lm-eval":
            from truthkit.models import load

            formats.to_lm_eval(vector, out, load(args.model)[0], strength=args.strength)
    print(out)


def _compare(args: argparse.Namespace) -> None:
    first, second = _read(args.vector), _read(args.other)
    cosines = first.cosine(second)
    if args.json:
        print(json_text({"cosine": cosines, "leakage": first.leakage(second)}))
        return
    print("  layer    cosine   leakage      norm     other")
    for layer, cosine in cosines.items():
        norms = f"{float(first[layer].norm()):9.3f} {float(second[layer].norm()):9.3f}"
        print(f"  {layer:5} {cosine:9.4f} {cosine**2:9.4f} {norms}")
