"""`truthkit extract`: a steering vector from a file of pairs."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.cli.files import readable, writable
from truthkit.cli.model_options import add_model_options, check_model_options, placing
from truthkit.cli.parser import at_least
from truthkit.errors import ArgumentError
from truthkit.files.writing import json_text
from truthkit.steering.extraction.methods import find_method
from truthkit.steering.layers import middle_of_best
from truthkit.steering.spec import parse_layers, parse_positions
from truthkit.written import split_name

if TYPE_CHECKING:
    from truthkit.parallel import Shards
    from truthkit.steering import SteeringVector
    from truthkit.steering.extraction.pairs import Pair

_EPILOG = """\
A line of PAIRS is {"positive": ..., "negative": ...}, each a text or a list of chat messages; with "prompt", the two
are its answers. A message of an image-text model may hold images: its content is then a list such as
[{"type": "image", "path": "a.png"}, {"type": "text", "text": ...}], with paths from the folder of PAIRS. Pairs with the
same "group" are never on both sides of the held-out split. Bad lines are reported and skipped.

positions: last, prompt, answer, all, image, a number, a range 3:10, role:user, text:PASSAGE; joined by +
methods:   mean, pca, mean_pca, logistic, lda, contrastive_pca; with an option as in logistic:l2=0.5

An extraction that was interrupted goes on where it stopped when the same command is given again. Several processes
share the work: torchrun --nproc_per_node 2 -m truthkit.cli extract ... or accelerate launch --multi_gpu -m ...; both
work without a GPU too, but `accelerate launch --cpu` starts one process unless it is given --mpirun_hostfile. With
--tp N so many processes hold the model together, and count as one.

examples:
  truthkit extract pairs.jsonl --layers 8-20 --positions answer --out v.safetensors
  truthkit extract --images photos/*.jpg --model org/name --out vision.safetensors
"""


def add_parser(subparsers: Any) -> None:
    """Add `extract` to the command line."""
    parser = subparsers.add_parser(
        "extract",
        help="a steering vector from contrast pairs",
        description="Extract a steering vector for every layer from pairs of texts, and score it on held-out pairs.",
        epilog=_EPILOG,
    )
    parser.add_argument("pairs", metavar="PAIRS", nargs="?", help="JSON Lines file of pairs")
    parser.add_argument("--pairs", dest="pairs_option", metavar="PAIRS", help="the same, as an option")
    parser.add_argument("--out", metavar="FILE", required=True, help="the vector: .safetensors")
    add_model_options(parser)
    parser.add_argument(
        "--against", metavar="M", help='read the negatives from another model, or "base" for no adapter'
    )
    parser.add_argument("--layers", metavar="L", help="as 10, 10+12+-1 or 8-20 (default: all)")
    parser.add_argument("--positions", metavar="P", default="last", help="see below")
    parser.add_argument("--method", metavar="M", default="mean", help="see below")
    parser.add_argument("--site", choices=("block", "heads", "mlp"), default="block", help="what is read")
    parser.add_argument(
        "--heads",
        type=at_least(1),
        metavar="K",
        help="for ITI: choose the K heads whose probes read the held-out pairs best; --method mean or logistic",
    )
    parser.add_argument("--held-out", type=float, default=0.2, metavar="X", help="share to score on")
    parser.add_argument("--token-budget", type=at_least(1), default=2048, metavar="N", help="tokens per forward")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the held-out split")
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="IMAGE",
        help="for VTI, instead of pairs: directions of the vision tower, from whole to damaged images",
    )
    parser.add_argument(
        "--tokens",
        choices=("each", "mean"),
        default="each",
        help="with --images: a direction for each place of an image, or one for all (default: each)",
    )
    parser.add_argument(
        "--select",
        action="store_true",
        help="choose layer and strength on the held-out pairs, and keep that layer only",
    )
    parser.add_argument("--strengths", metavar="X", default="0.5+1+2+4", help="strengths that --select tries")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Extract, score, save; 0 if there is a vector."""
    from truthkit.steering.extraction.pairs import read_pairs

    source = args.pairs or args.pairs_option
    if args.images:
        return _images(args, source)
    if source is None:
        raise ArgumentError("no pairs were given; name a JSON Lines file.")
    out = writable(args.out, "--out", [".safetensors"])
    check_model_options(args)
    method, options = _method(args.method)
    if not 0 <= args.held_out < 1:
        raise ArgumentError(f"--held-out is {args.held_out}; expected a share from 0 to less than 1.")
    if args.heads is not None:
        _check_heads(args, method)
    layers = parse_layers(args.layers) if args.layers else None
    positions = parse_positions(args.positions)
    strengths = _numbers(args.strengths)
    file = read_pairs(source)
    for bad in file.bad:
        print(f"{source}: {bad}", file=sys.stderr)
    if not file.pairs:
        raise ArgumentError(f"{source} holds no usable pair.")

    from truthkit.hf.spread import shards
    from truthkit.models import load
    from truthkit.steering import extract

    model, processor = load(args.model, revision=args.revision, dtype=args.dtype, adapter=args.adapter, **placing(args))
    if args.heads is not None:
        return _heads(args, model, processor, file.pairs, out, positions, method, options)
    against = args.against
    if against is not None and against != "base":
        against, _ = load(against, dtype=args.dtype, **placing(args))
    pairs, chosen_on = _split(file.pairs, processor, args) if args.select else (file.pairs, [])
    place = shards(model)
    with _work(out, place) as work:
        vector = extract(
            model,
            processor,
            pairs,
            layers=layers,
            positions=positions,
            method=method,
            site=args.site,
            held_out=args.held_out,
            token_budget=args.token_budget,
            seed=args.seed,
            against=against,
            checkpoint=work / "states",
            progress=True,
            **options,
        )
        if place.index > 0:
            return 0
        if args.select:
            vector = _select(model, processor, vector, chosen_on, strengths, positions)
        if not place.speaks:
            return 0
        vector.save(work / out.name)  # if this process is killed here, the next run clears away the half-written file
        os.replace(work / out.name, out)
        shutil.rmtree(work, ignore_errors=True)
    _report(args, vector, out)
    return 0


def _images(args: argparse.Namespace, pairs: str | None) -> int:
    """Write directions of the vision tower."""
    options = [f"--{name}" for name in ("against", "layers", "heads", "select") if getattr(args, name)]
    if given := [*(["PAIRS"] if pairs else []), *options]:
        raise ArgumentError(f"--images finds directions of the vision tower without {given[0]}; leave one of them out.")
    for image in args.images:
        readable(image, "--images")
    out = writable(args.out, "--out", [".safetensors"])
    check_model_options(args)

    from truthkit.cli.rendering import working
    from truthkit.models import load
    from truthkit.steering.vision import vision_vector

    with working("loading the model"):
        model, processor = load(
            args.model, revision=args.revision, dtype=args.dtype, adapter=args.adapter, **placing(args)
        )
    with working(f"reading {len(args.images)} images and their damaged copies"):
        vector = vision_vector(model, processor, args.images, tokens=args.tokens, seed=args.seed)
    vector.save(out)
    blocks = list(vector.directions)
    if args.json:
        print(json_text({"vector": str(out), "blocks": blocks, **vector.provenance}))
    else:
        print(f"{out}: directions of {len(blocks)} blocks of the vision tower, images read: {len(args.images)}")
    return 0


def _check_heads(args: argparse.Namespace, method: str) -> None:
    if method not in ("mean", "logistic") or args.select or args.against or args.layers or args.held_out == 0:
        raise ArgumentError(
            "--heads goes with --method mean or logistic, and with --held-out above 0; not with --layers, --against or "
            "--select."
        )


def _heads(
    args: argparse.Namespace,
    model: Any,
    processor: Any,
    pairs: list[Pair],
    out: Path,
    positions: Any,
    method: str,
    options: dict[str, Any],
) -> int:
    """Write the vector of the best heads."""
    from truthkit.hf.spread import shards
    from truthkit.steering.iti import iti_vector

    vector = iti_vector(
        model,
        processor,
        pairs,
        heads=args.heads,
        direction="mean" if method == "mean" else "probe",
        positions=positions,
        held_out=args.held_out,
        token_budget=args.token_budget,
        seed=args.seed,
        **options,
    )
    place = shards(model)
    if place.index == 0 and place.speaks:
        vector.save(out)
        _report(args, vector, out)
        if not args.json:
            best = ", ".join(
                f"{one['layer']}.{one['head']} {one['accuracy']:.3f}" for one in vector.provenance["heads"][:5]
            )
            print(f"held-out accuracy of the best heads, as layer.head: {best}")
    return 0


@contextmanager
def _work(out: Path, place: Shards) -> Iterator[Path]:
    """The folder beside `out` of what is not finished: nobody else's in the block, and gone if nothing was begun."""
    from truthkit.files.lock import only_writer

    work = out.with_name(f"{out.name}.partial")
    with only_writer(work, place.index, place.count) if place.speaks else nullcontext():
        try:
            yield work
        finally:
            if place.speaks and not (work / "states").exists():
                shutil.rmtree(work, ignore_errors=True)


def _method(text: str) -> tuple[str, dict[str, Any]]:
    name, pairs = split_name(text)
    options: dict[str, Any] = {}
    for key, value in pairs:
        options[key] = {"true": True, "false": False}.get(value)
        if options[key] is None:
            numbers = _numbers(value)
            if len(numbers) > 1:
                raise ArgumentError(f"--method has {key}={value}; expected one number, as in {key}={numbers[0]:g}.")
            options[key] = numbers[0]
    find_method(name, options)
    return name, options


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split("+")]
    except ValueError:
        raise ArgumentError(f"{text!r} is not a number, or numbers joined by +.") from None


def _split(pairs: list[Pair], processor: Any, args: argparse.Namespace) -> tuple[list[Pair], list[Pair]]:
    """Pairs to extract from, and pairs to choose layer and strength on."""
    from truthkit.steering.extraction.encoding import encode_pairs
    from truthkit.steering.extraction.held_out import split_groups

    fit, held = split_groups(encode_pairs(pairs, processor).groups, args.held_out, seed=args.seed + 1)
    if not held:
        raise ArgumentError("--select needs held-out pairs: give pairs of at least two groups, and --held-out above 0.")
    return [pairs[i] for i in fit], [pairs[i] for i in held]


def _select(
    model: Any, processor: Any, vector: SteeringVector, pairs: list[Pair], strengths: list[float], positions: Any
) -> SteeringVector:
    from dataclasses import replace

    from truthkit.steering.extraction.encoding import encode_pairs
    from truthkit.steering.extraction.select import Effect, choose, effect_on, likelihoods
    from truthkit.steering.layers import worth_trying

    encoded = encode_pairs(pairs, processor)
    everything = list(range(len(pairs)))
    texts = [ids for text, ids in enumerate(encoded.ids) if text not in encoded.pictured]
    if not texts:
        raise ArgumentError(
            "--select watches over fluency on texts without images, but every held-out pair has images."
        )
    scores = {layer: vector.scores[layer]["auc"] if vector.scores else 0.5 for layer in vector}
    before, effects = likelihoods(model, encoded, everything), dict[float, Effect]()

    def effect() -> Effect:
        found = effect_on(before, likelihoods(model, encoded, everything), encoded.groups)
        effects[found.value] = found
        return found

    best, trials = choose(
        model,
        processor,
        vector,
        effect,
        layers=worth_trying(scores, 3),
        strengths=strengths,
        texts=texts[:8],
    )
    assert best.effect is not None
    found, ends = effects[best.effect], (min(strengths), max(strengths))
    bounded = math.isfinite(found.low)
    selection = {
        "layer": best.layer,
        "strength": best.strength,
        "effect": best.effect,
        "unsteered": float((before[:, 0] - before[:, 1]).mean()),
        "gain": found.gain,
        "interval": [found.low, found.high] if bounded else None,
        "positive": found.positive,
        "divergence": best.divergence,
        "edge": best.strength if len(strengths) > 1 and best.strength in ends else None,
        "unit": "nats per token",
        "trials": [trial.as_dict() for trial in trials],
        "pairs": len(pairs),
        "groups": len(set(encoded.groups)),
        "texts": len(texts[:8]),
    }
    return replace(vector.at(best.layer), provenance={**vector.provenance, "selection": selection})


def _pairs(count: int) -> str:
    return f"{count} pair{'s' if count != 1 else ''}"


def _report(args: argparse.Namespace, vector: SteeringVector, out: Path) -> None:
    if args.json:
        print(json_text({"out": str(out), **vector.provenance}))
        return
    counts = vector.provenance["pairs"]
    print(f"{out}: {vector!r}, from {_pairs(counts['count'])}")
    if vector.scores:
        layer = middle_of_best({layer: score["auc"] for layer, score in vector.scores.items()})
        best = vector.scores[layer]
        print(
            f"best held-out AUC: layer {layer}, {best['auc']:.3f} [{best['low']:.3f}, {best['high']:.3f}], "
            f"p {best['p_any']:.3f} over all layers, {_pairs(int(best['pairs']))} in {best['groups']} groups"
        )
    if selection := vector.provenance.get("selection"):
        print(_chosen(selection))
    if selection and selection["edge"] is not None:
        print(
            f"strength {selection['edge']:g} is at the edge of those tried; try others beyond it with --strengths",
            file=sys.stderr,
        )


def _chosen(selection: dict[str, Any]) -> str:
    interval = selection["interval"]
    shown = "no interval from one group" if interval is None else f"95 % [{interval[0]:+.4f}, {interval[1]:+.4f}]"
    return (
        f"chosen: layer {selection['layer']}, strength {selection['strength']:g}; in nats per token, on "
        f"{_pairs(selection['pairs'])} held out for this:\n"
        f"  positive over negative sides {selection['unsteered']:.4f} -> {selection['effect']:.4f}, gain "
        f"{selection['gain']:+.4f}, {shown}\n"
        f"  positive sides {selection['positive']:+.4f}; KL from the unsteered model {selection['divergence']:.4f}, on "
        f"{selection['texts']} texts"
    )
