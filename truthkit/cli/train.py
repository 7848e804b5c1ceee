"""`truthkit train`: LoRA adapters, of an amateur that hallucinates or of a fact-checker."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.cli.files import existing, readable, writable
from truthkit.cli.model_options import check_model_options, placing
from truthkit.cli.parser import at_least
from truthkit.errors import ArgumentError
from truthkit.files.writing import json_text
from truthkit.training.settings import TrainingSettings

if TYPE_CHECKING:
    from truthkit.training.chat import Example

_RESUME = """\
The adapter is a plain PEFT folder with a model card and training.json. A training that was killed or interrupted goes
on where it stopped when the same command is given again, to the same result; its state is in DIR.partial. Several
processes share each step under torchrun or accelerate launch.
"""

_AMATEUR = f"""\
A record of DATA (JSON, JSON lines, .csv, .tsv or .xlsx) is in HaluEval's form, {{"question", "hallucinated_answer"}},
or has any prompt and answer field.
The loss is taken on the answers alone.

{_RESUME}
example, about 20 minutes on 2 cores:
  truthkit train amateur qa_one-turn_data.json qa_multi-turn_data.json --forms chat+plain --out amateur
  truthkit generate "Who wrote Romeo and Juliet?" --decoder greedy --decoder icd:amateur=amateur
"""

_REFLEX = f"""\
DATA is LIAR (.tsv), LIAR-RAW or RAW-FC (JSON, JSON lines, a folder), or any JSON or table with text, label,
explanation, evidence. The answer is the verdict, then the explanation; the loss is taken on it alone. Claims without an
explanation or evidence take part in the formats that do not need it.

formats: verdict, explained, evidence-verdict, evidence-explained; joined by +
labels:  6 (LIAR), 3 (true, half, false), 2 (true, false); six become three by joining neighbours

{_RESUME}
example:
  truthkit train reflex val_joined.jsonl --formats verdict+explained --held-out test_joined.jsonl --out checker
"""


def add_parser(subparsers: Any) -> None:
    """Add `train` to the command line."""
    parser = subparsers.add_parser(
        "train",
        help="a LoRA adapter: amateur or fact-checker",
        description="Train a LoRA adapter.",
        epilog="example:\n  truthkit train amateur qa_one-turn_data.json --out amateur",
    )
    kinds = parser.add_subparsers(title="what to train", dest="kind", metavar="WHAT", required=True)

    amateur = _kind(kinds, "amateur", "the hallucinating amateur of ICD and LOL", _AMATEUR)
    amateur.add_argument("--prompt-field", metavar="F", help="field that asks (default: question, prompt, ...)")
    amateur.add_argument(
        "--answer-field", metavar="F", help="field to learn (default: hallucinated_answer, answer, ...)"
    )
    amateur.add_argument("--knowledge", action="store_true", help="put HaluEval's knowledge before the question")
    amateur.add_argument("--forms", metavar="F", default="chat", help="chat, plain (Q: ... A:) or chat+plain")
    amateur.set_defaults(run=_run_amateur)

    reflex = _kind(kinds, "reflex", "REFLEX's role-play fact-checker", _REFLEX)
    reflex.add_argument("--formats", metavar="F", default="verdict", help="see below")
    reflex.add_argument("--labels", type=int, choices=(6, 3, 2), default=3, help="how many")
    reflex.add_argument(
        "--gold-as-evidence", action="store_true", help="show the gold explanation as evidence (an upper bound)"
    )
    reflex.set_defaults(run=_run_reflex)


def _kind(kinds: Any, name: str, what: str, epilog: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser(
        name,
        help=what,
        description=f"Train {what}.",
        epilog=epilog,
    )
    parser.add_argument("data", metavar="DATA", nargs="+", help="files to train on")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the adapter")
    parser.add_argument("--model", metavar="M", help="hub id, folder or bundled name (default: the bundled model)")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of a model on the hub (default: main)")
    parser.add_argument("--adapter", metavar="PATH", help="train this adapter on, instead of a new one")
    parser.add_argument("--dtype", metavar="DTYPE", help="float32, bfloat16, float16 (default: as in the checkpoint)")
    parser.add_argument("--quantization", choices=("4bit", "8bit"), help="of the frozen weights (QLoRA)")
    parser.add_argument("--device-map", metavar="D", help="as auto (default: one GPU per process where there are any)")
    parser.add_argument("--held-out", metavar="FILE", action="append", default=[], help="refuse to train on its texts")
    parser.add_argument("--drop-overlap", action="store_true", help="leave such texts out instead")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="train on so many records, drawn by the seed")
    parser.add_argument("--epochs", type=float, metavar="X", default=1.0, help="passes over the data")
    parser.add_argument("--steps", type=int, metavar="N", help="so many steps instead")
    for option, kind, default, text in (
        ("--lr", float, 5e-4, "peak learning rate"),
        ("--rank", int, 16, "of the LoRA update"),
        ("--dropout", float, 0.0, "on the update's input"),
        ("--token-budget", int, 1024, "tokens of a step"),
        ("--accumulate", int, 1, "pieces of a step, to save memory"),
        ("--seed", int, 0, "of data order, dropout and first weights"),
    ):
        parser.add_argument(option, type=kind, default=default, help=text)
    parser.add_argument(
        "--max-length", type=int, metavar="N", help="tokens of an example; longer prompts are cut (default: 1024)"
    )
    parser.add_argument("--skip-long", action="store_true", help="leave out examples whose answer does not fit")
    parser.add_argument(
        "--contrastive-margin", type=float, metavar="X", help="add SimCTG's contrastive loss with this margin, as 0.5"
    )
    parser.add_argument("--gradient-checkpointing", action="store_true", help="less memory, more time")
    parser.add_argument("--save-every", type=float, default=20.0, metavar="S", help="seconds between records")
    parser.add_argument("--json", action="store_true", help="print training.json instead of text")
    return parser


def _run_amateur(args: argparse.Namespace) -> int:
    settings = _checked(args)

    from truthkit.training.amateur_data import read_pairs

    options = {name: getattr(args, name) for name in ("prompt_field", "answer_field", "knowledge")}
    forms = args.forms.split("+")
    examples = [pair for file in args.data for pair in read_pairs(file, forms=forms, **options)]
    by_question: dict[str, list[Example]] = {}
    for example in examples:
        by_question.setdefault(example.spare[-1], []).append(example)
    kept = _kept(list(by_question), args)
    return _train(
        args,
        settings,
        [example for question in kept for example in by_question[question]],
        {"task": "amateur", "data_options": {**options, "forms": forms}},
        "It answers as the training data do: where those are hallucinated answers, it makes things up. It is the "
        "amateur that `tk.ICD(amateur=FOLDER)` and `tk.LOL(amateur=FOLDER)` contrast a model with; do not talk to it.",
    )


def _run_reflex(args: argparse.Namespace) -> int:
    settings = _checked(args)

    from truthkit.factcheck.claims import LABELS_2, LABELS_3, LABELS_6, read_claims
    from truthkit.factcheck.examples import reflex_examples

    labels = {6: LABELS_6, 3: LABELS_3, 2: LABELS_2}[args.labels]
    claims = [
        claim
        for file in args.data
        for claim in read_claims(file, labels=labels, gold_as_evidence=args.gold_as_evidence)
    ]
    kept = set(_kept(list(dict.fromkeys(claim.text for claim in claims)), args))
    formats = args.formats.split("+")
    options = {"formats": formats, "labels": list(labels), "gold_as_evidence": args.gold_as_evidence}
    return _train(
        args,
        settings,
        reflex_examples([claim for claim in claims if claim.text in kept], formats=formats, labels=labels),
        {"task": "reflex", "data_options": options},
        "A fact-checker by role-play dialogue (REFLEX, arXiv 2511.20233): the verdict first, then, where asked for, "
        "the explanation. `truthkit.factcheck.dialogue.dialogue` writes its prompts.",
    )


def _kept(texts: list[str], args: argparse.Namespace) -> list[str]:
    """The texts that are not held out, `--limit` of them."""
    import random

    from truthkit.factcheck.overlap import overlapping, refuse_overlap

    for file in args.held_out:
        if not args.drop_overlap:
            refuse_overlap(texts, file, " + ".join(Path(name).name for name in args.data))
        elif found := set(overlapping(texts, file)):
            print(f"{len(found)} texts are in {file} too and are left out", file=sys.stderr)
            texts = [text for number, text in enumerate(texts) if number not in found]
    if not texts:
        raise ArgumentError("all texts are held out; there is nothing to train on.")
    if args.limit is not None:
        texts = random.Random(args.seed).sample(texts, min(args.limit, len(texts)))
    return texts


_SETTINGS = (
    "lr",
    "rank",
    "dropout",
    "epochs",
    "steps",
    "token_budget",
    "accumulate",
    "seed",
    "max_length",
    "skip_long",
    "gradient_checkpointing",
    "contrastive_margin",
)


def _checked(args: argparse.Namespace) -> TrainingSettings:
    """The settings, once all that is named has been looked for."""
    check_model_options(args)
    for file in (*args.data, *args.held_out):
        option = "DATA" if file in args.data else "--held-out"
        (existing if Path(file).is_dir() and args.kind == "reflex" else readable)(file, option)
    writable(args.out, "--out")
    return TrainingSettings(**{name: getattr(args, name) for name in _SETTINGS})


def _train(
    args: argparse.Namespace, settings: TrainingSettings, examples: Sequence[Example], about: dict[str, Any], note: str
) -> int:
    from truthkit.files.writing import file_sha256
    from truthkit.models import load
    from truthkit.training.lora import train

    out = Path(args.out)
    files = [{"path": str(file), "sha256": file_sha256(file)} for file in args.data]
    model, processor = load(
        args.model,
        revision=args.revision,
        dtype=args.dtype,
        quantization=args.quantization,
        **placing(args),
    )
    report = train(
        model,
        getattr(processor, "tokenizer", processor),
        examples,
        out,
        settings=settings,
        start=args.adapter,
        about={
            **about,
            "limit": args.limit,
            "quantization": args.quantization,
            "files": files,
            "held_out": [file_sha256(file) for file in args.held_out],
            "note": note,
        },
        save_every=args.save_every,
        progress=True,
    )
    if int(os.environ.get("RANK", "0")) == 0:
        _print(report, out, as_json=args.json)
    return 0


def _print(report: dict[str, Any], out: Path, *, as_json: bool) -> None:
    if as_json:
        print(json_text({"out": str(out), **report}))
        return
    data, losses = report["data"], report["losses"]
    few = max(1, min(20, len(losses) // 4))
    first, last = (sum(part) / few for part in (losses[:few], losses[-few:]))
    print(f"{out}: {data['examples']} examples, {report['steps']} steps")
    print(f"loss {first:.3f} -> {last:.3f} {report['loss_unit']}")
    if data["cut"] or data["skipped"]:
        print(f"{data['cut']} prompts were cut to fit, {data['skipped']} examples left out", file=sys.stderr)
