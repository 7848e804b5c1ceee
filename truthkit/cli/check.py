"""`truthkit check`: the verdict on a claim, with its explanation."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from truthkit.cli.files import readable
from truthkit.cli.model_options import add_model_options, check_model_options, placing
from truthkit.cli.parser import at_least
from truthkit.cli.prompt_lines import read_prompts
from truthkit.errors import ArgumentError
from truthkit.files.writing import json_text
from truthkit.steering.spec import SteerSpec, parse_steer

if TYPE_CHECKING:
    from truthkit.factcheck.checker import Check
    from truthkit.factcheck.guide import Guide

_EPILOG = """\
Verdicts are the most probable of the label words, not parsed from what the model says. An untrained model's verdicts
are guesses: train an adapter with `truthkit train reflex`, or make one and its vectors with recipes/reflex.py.
Sentences in [brackets] were taken for noise by the style vector, and are left out of the cleaned explanation.

examples:
  truthkit check "The Great Wall of China is visible from the Moon."
  truthkit check "The bridge opened in 1932." --evidence "It was opened on 19 March 1932." --adapter DIR --json
  truthkit check --file claims.txt --adapter DIR --style style.safetensors --substance substance.safetensors
"""


def add_parser(subparsers: Any) -> None:
    """Add `check` to the command line."""
    parser = subparsers.add_parser(
        "check",
        help="the verdict on a claim, with its explanation",
        description="Check claims: a probability for every verdict, and an explanation with its noise left out.",
        epilog=_EPILOG,
    )
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="a claim; - reads one per line from standard input")
    parser.add_argument("--file", metavar="FILE", help="one claim per line, or .json, .jsonl, .csv, .tsv, .xlsx")
    parser.add_argument("--evidence", metavar="TEXT", help="what is known about it; the same for every claim")
    add_model_options(parser, adapter="a PEFT adapter, as `truthkit train reflex` makes it")
    for name in ("style", "substance"):
        parser.add_argument(
            f"--{name}", metavar="FILE[:STRENGTH]", help=f"guide by this {name} vector; of one layer, or with a choice"
        )
    parser.add_argument("--labels", metavar="A,B,...", help="the verdicts to choose from (default: true,half,false)")
    parser.add_argument("--no-explanation", action="store_true", help="the verdict only")
    parser.add_argument(
        "--max-new-tokens", type=at_least(1), default=160, metavar="N", help="of an explanation, at most"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check and print; 0 if there is a verdict on every claim."""
    claims = read_prompts(args.claims, args.file, noun="claim", meant="a sentence to check")
    labels = [label.strip() for label in args.labels.split(",")] if args.labels else None
    if args.evidence is not None and not args.evidence.strip():
        raise ArgumentError("--evidence is empty; pass what is known, or leave it out.")

    check_model_options(args)
    specs = {name: _spec(text) for name in ("style", "substance") if (text := getattr(args, name))}

    from truthkit.cli import rendering
    from truthkit.factcheck.checker import FactChecker
    from truthkit.factcheck.claims import LABELS_3
    from truthkit.models import load

    vectors = {name: _guide(spec) for name, spec in specs.items()}
    with rendering.working("loading the model"):
        model, processor = load(
            args.model, revision=args.revision, dtype=args.dtype, adapter=args.adapter, **placing(args)
        )
    checker = FactChecker(
        model,
        processor,
        vectors=vectors,
        labels=labels or LABELS_3,
        explain=not args.no_explanation,
        max_new_tokens=args.max_new_tokens,
    )
    found = checker.check_all(claims, [args.evidence] * len(claims))
    if args.json:
        print(json_text([one.as_dict() for one in found]))
    else:
        print("\n\n".join(rendering.printable(_shown(one)) for one in found))
    return 0


def _spec(text: str) -> SteerSpec:
    """FILE or FILE:STRENGTH, of a file that is there."""
    spec = parse_steer(text)
    if spec.options:
        raise ArgumentError(f"{text!r} has options; expected FILE or FILE:STRENGTH, the rest stands in the file.")
    readable(spec.path, "the vector")
    return spec


def _guide(spec: SteerSpec) -> Guide:
    """The guide of the file, with the strength that was written, if one was."""
    from dataclasses import replace

    from truthkit.factcheck.guide import Guide, as_guide
    from truthkit.steering.formats import read_vector

    vector = read_vector(spec.path)
    if spec.strength is not None and len(vector) == 1:
        return Guide(vector, spec.strength)
    guide = as_guide(vector)
    return guide if spec.strength is None else replace(guide, strength=spec.strength)


def _shown(one: Check) -> str:
    others = sorted(one.probabilities.items(), key=lambda item: -item[1])
    lines = [one.claim, f"{one.verdict}  ({', '.join(f'{label} {value:.1%}' for label, value in others)})"]
    explanation, at = "", 0
    for gone in one.dropped:
        explanation += f"{one.explanation[at : gone.start]}[{gone.text}]"
        at = gone.stop
    explanation += one.explanation[at:]
    return "\n".join([*lines, explanation] if explanation else lines)
