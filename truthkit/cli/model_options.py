"""The options of commands that load a model."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

from truthkit.cli.files import readable
from truthkit.errors import NotAvailableError
from truthkit.steering.spec import SteerSpec, parse_steer


def add_model_options(
    parser: Any, *, adapter: str = "a PEFT adapter, switched on in the model", tp: bool = True
) -> None:
    """Add `--model`, `--revision`, `--adapter`, `--dtype`, `--device-map` and `--tp`.

    Args:
        parser: a parser, or a group of one.
        adapter: what the help says of `--adapter`.
        tp: whether the command runs in several processes.
    """
    parser.add_argument(
        "--model", metavar="M", help="hub id, folder, .gguf file or bundled name (default: the bundled model)"
    )
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of a model on the hub (default: main)")
    parser.add_argument("--adapter", metavar="PATH", help=f"{adapter}: folder or hub id, as org/name@revision too")
    parser.add_argument("--dtype", metavar="DTYPE", help="float32, bfloat16, float16 (default: as in the checkpoint)")
    add_place_options(parser, tp=tp)


def add_place_options(parser: Any, *, tp: bool = True) -> None:
    """Add `--device-map` and, for commands that run in several processes, `--tp`."""
    parser.add_argument(
        "--device-map",
        metavar="MAP",
        help="cpu, cuda:1, or auto: spread it over all devices (default: a GPU for each process where there are any)",
    )
    if tp:
        parser.add_argument(
            "--tp", type=int, metavar="N", help="under torchrun: N processes hold the model (tensor parallelism)"
        )


def placing(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `tk.load` that say where a model goes: as typed, else to the GPU of this process."""
    tp = getattr(args, "tp", None)
    if tp is None and args.device_map is None:
        import torch

        own = {"": int(os.environ.get("LOCAL_RANK", "0"))}
        return {"device_map": own if torch.cuda.is_available() else None}
    return {"device_map": args.device_map, "tp_size": tp}


def add_steering_option(parser: Any, text: str) -> None:
    """Add `--steer`, which `text` explains, and `--allow-other-model`."""
    parser.add_argument("--steer", action="append", metavar="FILE:STRENGTH", help=text)
    parser.add_argument(
        "--allow-other-model", action="store_true", help="steer by vectors that were made from another model, too"
    )


def steering_option(args: argparse.Namespace) -> list[SteerSpec]:
    """What `--steer` names, each of a file that is there.

    Raises:
        ArgumentError, NotAvailableError: it makes no sense, or there is no such file.
    """
    specs = [parse_steer(text, allow_other_model=args.allow_other_model) for text in args.steer or ()]
    for spec in specs:
        readable(spec.path, "--steer")
    return specs


def check_model_options(args: argparse.Namespace) -> None:
    """Look for what `--model` and `--adapter` name where that is on this machine, at `--dtype` and at `--tp`.

    Raises:
        ArgumentError, NotAvailableError: as `tk.load` would.
    """
    from truthkit.models.bundled import BUNDLED
    from truthkit.models.checkpoint import local_model
    from truthkit.models.distribution import check_processes
    from truthkit.models.types import no_dtype

    if args.model is not None and args.model not in BUNDLED:
        local_model(args.model, getattr(args, "revision", None))
    if (processes := getattr(args, "tp", None)) is not None:
        check_processes(None, processes, device_map=getattr(args, "device_map", None))
    dtype = getattr(args, "dtype", None)
    if dtype is not None and not re.fullmatch(r"auto|bfloat16|float(8_\w+|16|32|64)?|half|double", dtype):
        raise no_dtype(dtype)
    adapter = getattr(args, "adapter", None)
    if adapter is not None and adapter.startswith((".", "/", "~")) and not Path(adapter).expanduser().is_dir():
        raise NotAvailableError(f"--adapter is {adapter!r}: there is no such folder.")
