"""`truthkit detect`: how likely answers are false, by one of the detectors."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from truthkit.cli.files import readable, writable
from truthkit.cli.model_options import add_model_options, check_model_options, placing
from truthkit.cli.parser import at_least
from truthkit.detection.methods import DETECTORS, find_detector
from truthkit.errors import ArgumentError
from truthkit.files.json_text import shown
from truthkit.files.reading import Record, read_records
from truthkit.files.writing import content_key, file_sha256, replacing, strict, write_atomically, writing

_AT_A_TIME = 64
"""Answers between two records."""

_EPILOG = """\
A line of FILE is {"prompt": ..., "answer": ...}; without "answer" the model writes one. It may have "context", the
passage of the prompt that the answer is to rest on, and "images", paths from the folder of FILE. A line of the result
is the same with "score" and "tokens", each [start, stop, score] by characters of the answer. A higher score is more
likely false; `truthkit eval detect` measures how well a method tells that.

methods: METHODS
with options as in eigenscore:samples=5, probe:vector=probe.safetensors,layer=12, lookback:lens=lens.safetensors and
agreement:view=context|vcd|m3id|icd. Make a probe with `truthkit extract PAIRS --method logistic --positions answer`.

A run with --out that was interrupted goes on where it stopped when the same command is given again.

examples:
  truthkit detect answers.jsonl --method p_true --out scores.jsonl
  truthkit detect --prompt "Who wrote Hamlet?" --answer "It was Marlowe." --page hamlet.html
"""


def add_parser(subparsers: Any) -> None:
    """Add `detect` to the command line."""
    parser = subparsers.add_parser(
        "detect",
        help="how likely answers are false",
        description="Score answers, and their tokens, by how likely they are false.",
        epilog=_EPILOG.replace("METHODS", ", ".join(DETECTORS)),
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="prompts with answers: JSON lines, .json, .csv, .xlsx")
    parser.add_argument("--prompt", metavar="TEXT", help="one prompt, instead of FILE")
    parser.add_argument("--answer", metavar="TEXT", help="its answer (default: the model writes one)")
    parser.add_argument("--method", metavar="NAME[:OPTIONS]", default="mean_log_prob", help="see below")
    parser.add_argument("--out", metavar="FILE", help="the scores: .jsonl (default: print them)")
    parser.add_argument("--page", metavar="FILE", help="answers with their tokens coloured: .html")
    add_model_options(parser, tp=False)
    parser.add_argument("--raw", action="store_true", help="no chat template: prompt and answer are joined as they are")
    parser.add_argument("--max-new-tokens", type=at_least(1), default=64, metavar="N", help="of answers of the model")
    parser.add_argument("--token-budget", type=at_least(1), default=2048, metavar="N", help="tokens per forward")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of answers that are drawn")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score, and write or print."""
    if (args.file is None) == (args.prompt is None):
        raise ArgumentError("give a FILE of prompts and answers, or one --prompt; one of the two.")
    if args.answer is not None and args.prompt is None:
        raise ArgumentError("--answer goes with --prompt; the answers to a FILE are in it.")
    out = None if args.out is None else writable(args.out, "--out", [".jsonl"])
    page = None if args.page is None else writable(args.page, "--page", [".html"])
    detector = find_detector(args.method)
    check_model_options(args)
    if args.prompt is not None:
        given = {"prompt": args.prompt} | ({} if args.answer is None else {"answer": args.answer})
        records, folder = [Record("--prompt", given)], Path()
    else:
        path = readable(args.file, "FILE")
        records, folder = read_records(path), path.parent
    lines = [_line(record) for record in records]
    found = _found(args, lines, folder, out)
    if page is not None:
        from truthkit.detection.heat import page as made

        model = args.model or "the bundled model"
        facts = {"method": args.method, "model": f"{model} + {args.adapter}" if args.adapter else model}
        text = made(found, f"{detector.name}: how likely answers are false", facts | detector.facts(), detector.unit)
        with writing(page), replacing(page) as part:
            part.write_text(text, encoding="utf-8")
    if out is None:
        _print(found, detector.unit)
    return 0


def _line(record: Record) -> dict[str, Any]:
    """A record's fields, once those that are read make sense."""
    line = dict(record.fields)
    line["prompt"] = record.text("prompt", "question")
    if not line["prompt"].strip():
        raise ArgumentError(f"{record.place}: the prompt is empty; pass a question or the beginning of a text.")
    if (answer := line.get("answer")) is not None and not (isinstance(answer, str) and answer.strip()):
        raise ArgumentError(f"{record.place}: 'answer' is {shown(answer)}; expected text, or no answer at all.")
    if (context := line.get("context")) is not None and not isinstance(context, str):
        raise ArgumentError(f"{record.place}: 'context' is {shown(context)}; expected a passage of the prompt.")
    images = line.get("images", [])
    if not isinstance(images, list) or not all(isinstance(path, str) for path in images):
        raise ArgumentError(f"{record.place}: 'images' is {shown(images)}; expected a list of paths.")
    return line


def _found(args: argparse.Namespace, lines: list[dict[str, Any]], folder: Path, out: Path | None) -> list[Any]:
    """The lines with their scores; with `out` kept as they come, and written there in the end."""
    from truthkit.cli.rendering import working
    from truthkit.models import load
    from truthkit.models.identities import identity
    from truthkit.progress import progress_bar

    with working("loading the model"):
        model, processor = load(
            args.model, revision=args.revision, dtype=args.dtype, adapter=args.adapter, **placing(args)
        )
    keys = [content_key(number, line) for number, line in enumerate(lines)]
    settings = {"method": args.method, "raw": args.raw, "max_new_tokens": args.max_new_tokens, "seed": args.seed}
    detector = find_detector(args.method)
    files = {name: file_sha256(value) for name, value in vars(detector).items() if isinstance(value, Path)}
    with _kept(out, {**settings, **identity(model, processor), "files": files}) as (done, keep):
        todo = [i for i, key in enumerate(keys) if key not in done]
        with progress_bar(len(lines), "detection", "answers", initial=len(lines) - len(todo)) as bar:
            for start in range(0, len(todo), _AT_A_TIME):
                some = todo[start : start + _AT_A_TIME]
                scored = _score(args, model, processor, [lines[i] for i in some], folder)
                keep([{"key": keys[i], "output": one} for i, one in zip(some, scored, strict=True)])
                bar.update(len(some))
        found = [{**line, **done[key]["output"]} for line, key in zip(lines, keys, strict=True)]
        if out is not None:
            write_atomically(out, found, lines=True)
    return found


def _score(
    args: argparse.Namespace, model: Any, processor: Any, lines: Sequence[dict[str, Any]], folder: Path
) -> list[dict[str, Any]]:
    """The results of some lines, in order; those with answers apart from those without."""
    from truthkit.detection.detect import detect
    from truthkit.images.reading import read_image

    results: dict[int, dict[str, Any]] = {}
    for answered in (True, False):
        some = [i for i, line in enumerate(lines) if (line.get("answer") is not None) is answered]
        if not some:
            continue
        found = detect(
            model,
            processor,
            [lines[i]["prompt"] for i in some],
            [lines[i]["answer"] for i in some] if answered else None,
            method=args.method,
            images=[[read_image(folder / path) for path in lines[i].get("images", [])] for i in some],
            contexts=[lines[i].get("context") for i in some],
            raw=args.raw,
            max_new_tokens=args.max_new_tokens,
            token_budget=args.token_budget,
            seed=args.seed,
        )
        results |= {i: one.as_dict() for i, one in zip(some, found, strict=True)}
    return [results[i] for i in range(len(lines))]


@contextmanager
def _kept(out: Path | None, config: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    """What is done by key, and how to add to it: in a folder beside `out`, which is cleared away when all is done."""
    if out is None:
        done: dict[str, Any] = {}
        yield done, lambda records: done.update({one["key"]: strict(one) for one in records})
        return
    from truthkit.evaluation.running.records import Records
    from truthkit.files.lock import only_writer

    work = out.with_name(f"{out.name}.partial")
    with only_writer(work):
        records = Records(work, config)
        yield records.done, records.append
    shutil.rmtree(work, ignore_errors=True)


def _print(found: Sequence[dict[str, Any]], unit: str) -> None:
    if not sys.stdout.isatty():
        for line in found:
            print(json.dumps(strict(line), ensure_ascii=False))
        return
    from truthkit.detection.heat import Heat, coloured, legend
    from truthkit.output import Output

    heat, console = Heat(found), Output()
    console.print(legend(heat, unit))
    for line in found:
        console.print(coloured(line, heat, unit))
