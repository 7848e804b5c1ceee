"""The options of commands that load a model."""

from __future__ import annotations

from typing import Any


def add_model_options(parser: Any, *, adapter: str = "a PEFT adapter, switched on in the model") -> None:
    """Add `--model`, `--revision`, `--adapter` and `--dtype`.

    Args:
        parser: a parser, or a group of one.
        adapter: what the help says of `--adapter`.
    """
    parser.add_argument(
        "--model", metavar="M", help="hub id, folder, .gguf file or bundled name (default: the bundled model)"
    )
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of a model on the hub (default: main)")
    parser.add_argument("--adapter", metavar="PATH", help=f"{adapter}: folder or hub id, as org/name@revision too")
    parser.add_argument("--dtype", metavar="DTYPE", help="float32, bfloat16, float16 (default: as in the checkpoint)")
