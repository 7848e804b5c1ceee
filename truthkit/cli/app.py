"""`truthkit app`: a page on this machine to try decoders, steering and images."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from typing import Any

from truthkit.cli.amateurs import amateur, check_amateur
from truthkit.cli.model_options import (
    add_model_options,
    add_steering_option,
    check_model_options,
    placing,
    steering_option,
)

_MMAP_THRESHOLD = -3
"""What `mallopt` calls the size from which a block is mapped by itself."""

_EPILOG = """\
The page is for this machine: it listens on 127.0.0.1, and its address holds a token of this start. On a server, forward
the port (ssh -L 7860:localhost:7860 HOST) and open the same address. With --host 0.0.0.0 everybody on the network who
knows the address can use it, unencrypted.

examples:
  truthkit app --open
  truthkit app --model scene-vlm
  truthkit app --amateur path/to/adapter --steer v.safetensors:1.5,layers=14
"""


def add_parser(subparsers: Any) -> None:
    """Add `app` to the command line."""
    parser = subparsers.add_parser(
        "app",
        help="a local page: answers side by side as they are made",
        description="Serve a page on this machine: type a prompt or drop an image, and see decoders answer.",
        epilog=_EPILOG,
    )
    models = parser.add_argument_group("models")
    add_model_options(models, tp=False)
    models.add_argument(
        "--amateur",
        action="append",
        metavar="NAME|PATH",
        help="adapter or model that icd and lol may contrast with; repeat for more",
    )
    add_steering_option(
        models, "a vector to steer by and to project tokens on, as in v.safetensors:1.5,layers=10+12; repeat for more"
    )
    page = parser.add_argument_group("page")
    page.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on")
    page.add_argument("--port", type=_port, default=7860, metavar="N", help="0 takes a free one")
    page.add_argument(
        "--time-limit",
        type=_seconds,
        default=600.0,
        metavar="S",
        help="seconds for which one run may have the model",
    )
    page.add_argument(
        "--open",
        action="store_true",
        help="open the page in the browser, whose arguments other users of the machine may see",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C, which is the way to end it: 0; SIGTERM ends it in the same way, and as other commands."""
    check_model_options(args)
    steers = steering_option(args)
    for name in args.amateur or ():
        check_amateur(name)

    from truthkit.app.engine import Engine
    from truthkit.app.server import Server
    from truthkit.cli import rendering
    from truthkit.interrupt import Terminated
    from truthkit.models import load
    from truthkit.models.bundled import DEFAULT

    _return_large_blocks()
    server = Server(args.host, args.port)  # a port in use is no news to wait for
    with rendering.working("loading the model"):
        model, processor = load(
            args.model, revision=args.revision, dtype=args.dtype, adapter=args.adapter, **placing(args)
        )
        amateurs = {name: amateur(name, model, args.dtype, placing(args)) for name in args.amateur or ()}
        engine = Engine(model, processor, args.model or DEFAULT, amateurs=amateurs, steers=steers)
    print(f"truthkit app: {server.url}", flush=True)
    if not is_loopback(args.host):
        print("it can be reached from the network, unencrypted, by whoever has this address", file=sys.stderr)
    if args.open:
        import webbrowser

        webbrowser.open(server.url)
    try:
        server.serve(engine, args.time_limit)
    except Terminated:
        raise
    except KeyboardInterrupt:
        print("truthkit app: stopped", file=sys.stderr)
    return 0


def _return_large_blocks() -> None:
    """Let glibc, where there is one, give blocks of 2 MiB and more back as soon as they are free.

    It learns to keep those of a decoded photograph, and each thread's heap keeps its own.
    """
    import ctypes

    with suppress(OSError, AttributeError, TypeError):  # another C library; Windows has no library of all
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 2**21)


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"is {text!r}; expected 0 to 65535.")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"is {text!r}; expected a number of seconds above 0.")
    return seconds


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
