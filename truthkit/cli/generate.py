"""`truthkit generate`: one prompt, several decoders, their answers side by side."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from textwrap import fill, shorten
from typing import TYPE_CHECKING, Any

from truthkit.cli.amateurs import amateur, check_amateur
from truthkit.cli.model_options import (
    add_model_options,
    add_steering_option,
    check_model_options,
    placing,
    steering_option,
)
from truthkit.cli.prompt_lines import read_prompts
from truthkit.decoding.spec import DecoderSpec, parse_spec
from truthkit.errors import ArgumentError
from truthkit.files.writing import json_text
from truthkit.generation.settings import AnswerSettings

if TYPE_CHECKING:
    from truthkit.cli.side_by_side import Shown

_EXAMPLES = """\
Lists are joined by +, as in lol:layers=14+18+22,refocus=true, and so are decoders that work at once, as in ritual+vcd.
Without --decoder: greedy, and icd (cad with --context, ritual with --image).

examples:
  truthkit generate "Who wrote Romeo and Juliet?" --decoder greedy --decoder dola --explain
  truthkit generate --file questions.txt --decoder greedy --decoder icd:lam=0.5 --json
  truthkit generate "Who wrote it?" --context "It was written by Ada." --decoder greedy --decoder cad
  truthkit generate "What is in the picture?" --model scene-vlm --image photo.jpg --decoder greedy --decoder ritual
"""


def add_parser(subparsers: Any) -> None:
    """Add `generate` to the command line."""
    parser = subparsers.add_parser(
        "generate",
        help="answers of several decoders side by side",
        description="Answer prompts with several decoders side by side, and mark where the answers part.",
        epilog=_decoder_help,
    )
    prompts = parser.add_argument_group("prompts")
    prompts.add_argument(
        "prompts", nargs="*", metavar="PROMPT", help="a prompt; - reads one per line from standard input"
    )
    prompts.add_argument("--file", metavar="FILE", help="one prompt per line, or .json, .jsonl, .csv, .tsv, .xlsx")
    prompts.add_argument("--context", metavar="TEXT", help="a passage that cad puts in front of the prompt")
    prompts.add_argument(
        "--image", action="append", metavar="FILE", help="an image in front of every prompt; repeat for more"
    )
    prompts.add_argument("--system", metavar="TEXT", help="the system message of the chat")
    prompts.add_argument("--raw", action="store_true", help="continue the prompt as it is, without the chat template")

    models = parser.add_argument_group("models")
    add_model_options(models)
    models.add_argument(
        "--amateur",
        metavar="NAME|PATH",
        help="adapter or model that icd and lol contrast with "
        "(default: the bundled model's own; else, as 'prompt', the model told to be dishonest)",
    )
    add_steering_option(
        models, "steer every answer by a vector of `truthkit extract`, as in v.safetensors:1.5,layers=10+12"
    )

    decoding = parser.add_argument_group("decoding")
    decoding.add_argument("--decoder", action="append", metavar="NAME[:OPTIONS]", help="repeat for more; see below")
    decoding.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="of an answer, at most")
    decoding.add_argument("--sample", action="store_true", help="draw tokens, under every decoder but greedy")
    decoding.add_argument("--temperature", type=float, metavar="T", help="for sampling (default: the model's own)")
    decoding.add_argument("--top-p", type=float, metavar="P", help="for sampling (default: the model's own)")
    decoding.add_argument("--seed", type=int, default=0, metavar="N", help="set before every answer")
    decoding.add_argument("--num-beams", type=int, default=1, metavar="N", help="beam search; 1 is none")

    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    output.add_argument("--explain", action="store_true", help="show, token by token, which view pushed the choice")
    parser.set_defaults(run=run)


def _decoder_help() -> str:
    """Every decoder with its options and their defaults, and examples."""
    from truthkit.decoding.catalog import catalog

    lines = ["decoders (--decoder NAME or NAME:option=value,option=value):"]
    known = sorted(catalog(), key=lambda decoder: decoder.needs_image)
    for number, decoder in enumerate(known):
        if decoder.needs_image and not known[number - 1].needs_image:
            lines.append("for image-text models, whose images come from --image:")
        lines.append(_entry(decoder.name, decoder.summary))
        if decoder.options:
            written = [f"{option.name}={shorten(option.default, 20, placeholder='...')}" for option in decoder.options]
            lines.append(_entry("", ", ".join(written)))
    return "\n".join(lines) + "\n" + _EXAMPLES


def _entry(name: str, text: str) -> str:
    return fill(
        text or "no description",
        118,
        initial_indent=f"  {name:<20} ",
        subsequent_indent=" " * 23,
        break_on_hyphens=False,
    )


def run(args: argparse.Namespace) -> int:
    """Generate and print; 0 if all answers came out."""
    prompts = read_prompts(args.prompts, args.file)
    check_model_options(args)
    steers = steering_option(args)
    usual = "cad" if args.context else "ritual" if args.image else "icd"
    specs = [parse_spec(text) for text in args.decoder or ("greedy", usual)]
    settings = [_settings(spec, args) for spec in specs]
    _check_all_is_used(specs, args)
    if args.amateur:
        check_amateur(args.amateur)
    images = _images(args.image or ())

    from rich.text import Text

    from truthkit.cli import rendering
    from truthkit.cli.side_by_side import Contestant, answer_all
    from truthkit.models import load
    from truthkit.output import Output
    from truthkit.text.encode import encode_prompt, passage_in_front
    from truthkit.text.tokens import text_tokenizer

    passage = passage_in_front(args.context) if args.context else ""
    with rendering.working("loading the model"):
        model, processor = load(
            args.model, revision=args.revision, dtype=args.dtype, adapter=args.adapter, **placing(args)
        )
        if images and not hasattr(processor, "image_processor"):
            raise ArgumentError("--image needs an image-text model, and this is a text model; name one with --model.")
        decoders = [_build(spec, args, model, processor, passage, images) for spec in specs]

    if isinstance(sys.stdout, io.TextIOWrapper):  # an output without Unicode gets escapes instead of an error
        sys.stdout.reconfigure(errors="backslashreplace")
    console, documents = Output(), []
    for number, prompt in enumerate(prompts, start=1):
        contestants = [
            Contestant(
                spec.text,
                decoder,
                encode_prompt(
                    processor, _in_full(prompt, spec, passage), system=args.system, raw=args.raw, images=images
                ),
                setting,
            )
            for spec, decoder, setting in zip(specs, decoders, settings, strict=True)
        ]
        title = f"prompt {number}/{len(prompts)}"
        with ExitStack() as steering:
            for steer in steers:
                steering.enter_context(steer.build(model, processor))
            stream = None if args.json else console
            shown = answer_all(model, processor, contestants, title=title, explain=args.explain, console=stream)
            shown = [one._replace(label=_label(one)) for one in shown]
        if args.json:
            answers = [_answer_record(spec, entry) for spec, entry in zip(specs, shown, strict=True)]
            documents.append({"prompt": prompt, "answers": answers})
            continue
        if number == 1:
            console.print(Text(_headline(args, model, specs), style="dim"), soft_wrap=True)
        rendering.show_answers(console, text_tokenizer(processor, "an answer"), prompt, shown)
        if args.explain and number == 1:
            rendering.show_trace_legend(console)
        for entry in shown:
            if entry.answer.trace is not None:
                rendering.show_trace(console, entry.label, entry.answer.trace, entry.answer.share)
    if args.json:
        print(json_text(_run_record(args, model) | {"prompts": documents}))
    return 0


def _images(paths: Sequence[str]) -> list[Any]:
    if not paths:
        return []
    from truthkit.images.reading import read_image

    return [read_image(path) for path in paths]


def _settings(spec: DecoderSpec, args: argparse.Namespace) -> AnswerSettings:
    settings = AnswerSettings(
        max_new_tokens=args.max_new_tokens,
        sample=spec.draws(args.sample),
        temperature=args.temperature,
        top_p=args.top_p,
        seed=args.seed,
        num_beams=args.num_beams,
    )
    if args.explain:
        settings.check_one_row()
    return settings


def _check_all_is_used(specs: Sequence[DecoderSpec], args: argparse.Namespace) -> None:
    """Raise for an argument that would change nothing, or one that is missing."""
    cad = [spec.text for spec in specs if spec.takes("context")]
    if cad and not args.context:
        raise ArgumentError(f"decoder {cad[0]!r} amplifies what a passage says; give the passage with --context TEXT.")
    seeing = [spec.text for spec in specs if spec.needs_image]
    if seeing and not args.image:
        raise ArgumentError(f"decoder {seeing[0]!r} compares images; give one with --image FILE.")
    if args.context is not None and not args.context.strip():
        raise ArgumentError("--context is empty; pass the passage.")
    if args.context and not cad:
        raise ArgumentError("--context is read by cad alone; add --decoder cad, or put the passage into the prompt.")
    if args.amateur and not any(spec.takes("amateur") for spec in specs):
        raise ArgumentError("--amateur is for decoders that contrast with one; add --decoder icd or --decoder lol.")
    samples = args.sample or any(spec.name == "sample" for spec in specs)
    if not samples and (args.temperature is not None or args.top_p is not None):
        raise ArgumentError("--temperature and --top-p are for sampling; add --sample or --decoder sample.")


def _build(
    spec: DecoderSpec, args: argparse.Namespace, model: Any, processor: Any, passage: str, images: list[Any]
) -> Any:
    """The decoder, with the amateur, the passage or the images that it needs."""
    name = spec.options.get("amateur") or args.amateur if spec.takes("amateur") else None
    opponent = amateur(name, model, args.dtype, placing(args)) if name else None
    return spec.build(model, processor, context=passage, images=[images], amateur=opponent)


def _in_full(prompt: str, spec: DecoderSpec, passage: str) -> str:
    return passage + prompt if spec.takes("context") else prompt


def _label(shown: Shown) -> str:
    """The decoder's name, and with RITUAL the transforms of the last prompt."""
    names = shown.answer.notes.get("chosen", [[]])[0]
    return f"{shown.label} ({', '.join(name.replace('_', ' ') for name in names)})" if names else shown.label


def _headline(args: argparse.Namespace, model: Any, specs: Sequence[DecoderSpec]) -> str:
    """What the reader needs to know: one line on the model, and one on each thing to watch for."""
    parts = [args.model or "bundled model", _dtype(model), f"up to {args.max_new_tokens} new tokens"]
    if args.num_beams > 1:
        parts.append(f"{args.num_beams} beams")
    parts += [f"steered by {text}" for text in args.steer or ()]
    lines = [", ".join(parts)]
    if len(specs) > 1:
        lines.append(f"highlighted, or after ‖: where an answer's tokens part from those of {specs[0].text}")
    if any(spec.takes("context") for spec in specs):
        lines.append("cad has the passage in front of its prompt; the others don't")
    return "\n".join(lines) + "\n"


def _dtype(model: Any) -> str:
    return str(model.dtype).removeprefix("torch.")


def _run_record(args: argparse.Namespace, model: Any) -> dict[str, Any]:
    inputs = ("model", "adapter", "image", "amateur", "steer", "system", "context", "raw")
    sampling = ("max_new_tokens", "sample", "temperature", "top_p", "seed", "num_beams")
    return {name: getattr(args, name) for name in inputs + sampling} | {"dtype": _dtype(model)}


def _answer_record(spec: DecoderSpec, shown: Shown) -> dict[str, Any]:
    answer = shown.answer
    record = {
        "decoder": spec.name,
        "options": spec.options,
        "text": answer.text,
        "token_ids": answer.token_ids,
        "finished": answer.finished,
        "tokens_per_second": answer.tokens_per_second,
        "parts_at": shown.parts_at,
    }
    if answer.trace is not None:
        record["explain"] = [asdict(step) for step in answer.trace]
    noted = {"transforms": "chosen", "reply": "replies", "fell_back": "fell_back"}
    return record | {name: answer.notes[note][0] for name, note in noted.items() if note in answer.notes}
