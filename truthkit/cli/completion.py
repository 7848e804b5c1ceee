"""`truthkit completion`: what a shell needs to complete the command line with the tab key."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

SHELLS = ("bash", "zsh", "fish")

_FILES = ("FILE", "PATH", "PAIRS", "DATA", "ANSWERS", "OBJECTS", "IMAGE", "RUN", "OTHER", "NAME|PATH", "FILE:STRENGTH")
_FOLDERS = ("DIR", "FOLDER")

_EPILOG = """\
Commands, options, tasks, decoders and files are completed. Nothing of truthkit runs when the tab key is pressed: print
the script again after an update. Where it goes:
  bash  ~/.local/share/bash-completion/completions/truthkit
  zsh   _truthkit, in a folder of $fpath
  fish  ~/.config/fish/completions/truthkit.fish

example:
  truthkit completion bash
"""


def add_parser(subparsers: Any) -> None:
    """Add `completion` to the command line."""
    parser = subparsers.add_parser(
        "completion",
        help="complete this command line in a shell",
        description="Print a script that has bash, zsh or fish complete truthkit's command line.",
        epilog=_EPILOG,
    )
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script; 0."""
    import shtab

    from truthkit.cli import build_parser

    parser = build_parser()
    names = _names()
    for action in _actions(parser):
        if action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar in _FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        for option in action.option_strings:
            action.choices = action.choices or names.get(option)
    print(shtab.complete(parser, shell=args.shell))
    return 0


def _names() -> dict[str, Sequence[str]]:
    """What may follow an option that takes more than these names, and so has no choices of its own."""
    from truthkit.decoding.discovery import PLAIN, decoders
    from truthkit.models.bundled import BUNDLED

    return {
        "--decoder": [*PLAIN, *sorted(decoders())],
        "--model": list(BUNDLED),
        "--dtype": ("float32", "bfloat16", "float16"),
    }


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Those of a parser and of all its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action
