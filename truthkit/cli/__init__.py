"""The `truthkit` command. One module per subcommand, each with `add_parser(subparsers)` and `run(args)`.

`add_parser` adds its parser and sets `run` as its default; `run` returns the exit code. Torch and transformers are
imported inside `run` only, after all that was typed has been checked, so that help and mistakes are instant.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import truthkit
from truthkit.cli.parser import Parser
from truthkit.cli.threads import spin_briefly
from truthkit.errors import ArgumentError, TruthkitError
from truthkit.interrupt import Terminated, termination_raises

COMMANDS = (
    "generate",
    "check",
    "detect",
    "extract",
    "vector",
    "train",
    "eval",
    "study",
    "compare",
    "report",
    "score",
    "pope",
    "isotropy",
    "models",
    "transforms",
    "app",
    "serve",
    "completion",
)

_HOME = Path(truthkit.__file__).parent

_LONGEST = 2000  # characters of an error, whatever it quotes

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_BAD_ARGUMENTS = 2
EXIT_OUR_FAULT = 70
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141
EXIT_TERMINATED = 143

RESUMABLE = ("detect", "extract", "train", "eval", "study")
"""Commands that keep what they have finished."""

_EPILOG = """\
exit codes:
  0    done
  1    it could not be done: a model, a file or a package is missing or does not fit
  2    an argument is wrong
  70   truthkit's fault: please report what was printed
  130  interrupted
  143  terminated, by SIGTERM

Errors are one line; TRUTHKIT_DEBUG=1 shows where they come from.

example:
  truthkit models
"""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, subcommands included."""
    parser = Parser(
        prog="truthkit",
        description="Truthful decoding, steering and benchmarks for Hugging Face models.",
        epilog=_EPILOG,
    )
    parser.add_argument("-V", "--version", action="version", version=f"truthkit {truthkit.__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        import_module(f"truthkit.cli.{command}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (they are listed in `truthkit --help`)."""
    debug = os.environ.get("TRUTHKIT_DEBUG") == "1"
    spin_briefly(os.environ, sys.modules)
    usual = warnings.formatwarning
    if not debug:
        warnings.formatwarning = _warning
    try:
        args = build_parser().parse_args(argv)
        with termination_raises(), _one_speaks(args):
            code = args.run(args)
        sys.stdout.flush()
        return int(code)
    except SystemExit as stop:  # help, or the version
        return int(stop.code or EXIT_OK)
    except TruthkitError as error:
        if debug:
            raise
        print(f"truthkit: error: {_line(error)}", file=sys.stderr)
        return EXIT_BAD_ARGUMENTS if isinstance(error, ArgumentError) else EXIT_FAILED
    except Terminated:
        print(f"truthkit: terminated{_resumable(argv)}", file=sys.stderr)
        return EXIT_TERMINATED
    except KeyboardInterrupt:
        print(f"truthkit: interrupted{_resumable(argv)}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    except OSError as error:  # a folder that is not there or may not be written, a full disk
        if debug:
            raise
        known = error.filename and error.strerror
        said = f"{error.filename}: {error.strerror}." if known else _line(error)
        print(f"truthkit: error: {said}", file=sys.stderr)
        return EXIT_FAILED
    except MemoryError:
        print("truthkit: error: the memory is full; use smaller batches, another dtype or less data.", file=sys.stderr)
        return EXIT_FAILED
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(_ours(error), file=sys.stderr)
        return EXIT_OUR_FAULT
    finally:
        warnings.formatwarning = usual


@contextmanager
def _one_speaks(args: argparse.Namespace) -> Iterator[None]:
    """Of processes that hold a model together the first one prints, for all come to the same."""
    if getattr(args, "tp", None) is None or os.environ.get("RANK", "0") == "0":
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


def _resumable(argv: Sequence[str] | None) -> str:
    words = sys.argv[1:] if argv is None else argv
    known = words[:1] and words[0] in RESUMABLE and any(word.partition("=")[0] == "--out" for word in words)
    return "; what was finished is kept: run the same command again to go on" if known else ""


def _ours(error: Exception) -> str:
    """One line about a defect: what was raised, and where in truthkit."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(_HOME)] or frames
    place = f"{Path(own[-1].filename).name}, line {own[-1].lineno}, in {own[-1].name}"
    return (
        f"truthkit: error: truthkit's fault: please report this line and the command: {type(error).__name__} at "
        f"{place}: {_line(error)} (TRUTHKIT_DEBUG=1 shows the traceback)"
    )


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _warning(message: Warning | str, *_: Any, **__: Any) -> str:
    return f"truthkit: warning: {' '.join(str(message).split())}\n"
