"""`truthkit serve`: OpenAI's API on this machine, with decoders and steering per request."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from truthkit.cli.amateurs import amateur, check_amateur
from truthkit.cli.model_options import (
    add_model_options,
    add_steering_option,
    check_model_options,
    placing,
    steering_option,
)
from truthkit.errors import ArgumentError

_KEY = "TRUTHKIT_API_KEY"

_EPILOG = f"""\
Any client of OpenAI's API can ask: point it at the address that is printed, which ends in /v1. A request may name its
own decoder, and a strength for each vector of --steer:

  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' -d '{{
    "messages": [{{"role": "user", "content": "Who wrote Romeo and Juliet?"}}],
    "decoder": "dola:layers=low", "steer": {{"v": 1.5}}, "max_tokens": 64}}'

Requests for one decoder that wait are answered in one batch; lengths, stops, seeds, temperatures and strengths are each
request's own. Without an API key only programs of this machine can ask. Others need --host, and then a key, best in the
environment as {_KEY}; nothing is encrypted.

examples:
  truthkit serve
  truthkit serve --model scene-vlm --decoder vcd --port 8001
  truthkit serve --decoder dola --steer v.safetensors:0,layers=14 --amateur path/to/adapter
"""


def add_parser(subparsers: Any) -> None:
    """Add `serve` to the command line."""
    parser = subparsers.add_parser(
        "serve",
        help="OpenAI's API before a model, with decoders and steering",
        description="Serve a model under OpenAI's API: chat and text completions, under any decoder and steering.",
        epilog=_EPILOG,
    )
    models = parser.add_argument_group("models")
    add_model_options(models, tp=False)
    models.add_argument("--name", metavar="NAME", help="what clients call the model (default: as in --model)")
    models.add_argument(
        "--amateur",
        action="append",
        metavar="NAME|PATH",
        help="adapter or model that requests may contrast with, as decoder icd:amateur=NAME; repeat for more",
    )
    add_steering_option(
        models,
        "a vector that answers are steered by, as in v.safetensors:1.5,layers=10+12; with :0 only those whose request "
        "asks for it; repeat for more",
    )
    models.add_argument(
        "--decoder",
        default="greedy",
        metavar="NAME[:OPTIONS]",
        help="for requests that name none (default: greedy); truthkit generate --help lists them",
    )
    server = parser.add_argument_group("server")
    server.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on")
    server.add_argument("--port", type=_count(0, 65535), default=8000, metavar="N", help="0 takes a free one")
    server.add_argument("--api-key", metavar="KEY", help=f"what requests must bring (default: ${_KEY})")
    server.add_argument("--batch", type=_count(1, 1024), default=16, metavar="N", help="answers at a time, at most")
    server.add_argument(
        "--max-new-tokens", type=_count(1, 10**6), default=4096, metavar="N", help="of an answer, at most"
    )
    server.add_argument(
        "--max-waiting", type=_count(1, 10**6), default=256, metavar="N", help="answers that may wait; more are refused"
    )
    server.add_argument(
        "--time-limit", type=_count(1, 10**6), default=600, metavar="S", help="seconds for which a batch has the model"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C, which is the way to end it: 0; SIGTERM ends it in the same way, and as other commands."""
    from truthkit.decoding.spec import parse_spec

    check_model_options(args)
    decoder, steers, key = parse_spec(args.decoder), steering_option(args), _key(args)
    for name in args.amateur or ():
        check_amateur(name)

    from truthkit.cli import rendering
    from truthkit.endpoint.engine import Engine
    from truthkit.endpoint.server import Server
    from truthkit.interrupt import Terminated
    from truthkit.models import load
    from truthkit.models.bundled import DEFAULT

    server = Server(args.host, args.port, key=key)  # a port in use is no news to wait for
    with rendering.working("loading the model"):
        model, processor = load(
            args.model, revision=args.revision, dtype=args.dtype, adapter=args.adapter, **placing(args)
        )
        engine = Engine(
            model,
            processor,
            args.name or _short(args.model or DEFAULT),
            decoder=decoder,
            amateurs={name: amateur(name, model, args.dtype, placing(args)) for name in args.amateur or ()},
            steers=steers,
            new_tokens=args.max_new_tokens,
        )
    print(f"truthkit serve: {server.url} (model {engine.offer.name}, decoder {decoder.text})", flush=True)
    if key:
        print("requests need the API key", file=sys.stderr)
    try:
        server.serve(engine, batch=args.batch, waiting=args.max_waiting, seconds=args.time_limit)
    except Terminated:
        raise
    except KeyboardInterrupt:
        print("truthkit serve: stopped", file=sys.stderr)
    return 0


def _key(args: argparse.Namespace) -> str:
    """The API key; "" for none, which is fine where no other machine can ask."""
    from truthkit.cli.app import is_loopback

    key = args.api_key if args.api_key is not None else os.environ.get(_KEY, "")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ArgumentError("the API key has a space, or a character that a header cannot hold; use another one.")
    if not key and not is_loopback(args.host):
        raise ArgumentError(
            f"--host is {args.host!r}, which other machines reach, and there is no API key; set {_KEY} or --api-key."
        )
    return key


def _short(model: str) -> str:
    """A folder's or file's own name, and hub ids as they are."""
    return Path(model).resolve().name if Path(model).exists() else model


def _count(least: int, most: int) -> Any:
    def count(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text[:10]) <= most:
            raise argparse.ArgumentTypeError(f"is {text!r}; expected {least} to {most}.")
        return int(text)

    return count
