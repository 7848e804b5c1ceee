"""The command line's parser: argparse with errors that name the way out, and help that shows every default."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from truthkit.errors import ArgumentError, did_you_mean

_TEXTS = ("TEXT", "PROMPT", "CLAIM")
"""What may be empty as far as the parser knows; commands say what is missing."""

_KINDS: dict[Any, str] = {int: "an integer", float: "a number"}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are `ArgumentError`s; its subcommands' parsers are such too.

    Args:
        epilog: text, or a function that returns it, called when help is asked for.
        **options: of `argparse.ArgumentParser`.
    """

    def __init__(self, *args: Any, epilog: str | Callable[[], str] | None = None, **options: Any):
        self._late_epilog = epilog if callable(epilog) else None
        super().__init__(*args, **options | {"epilog": None if callable(epilog) else epilog, "formatter_class": _Help})

    def format_help(self) -> str:
        if self._late_epilog is not None:
            self.epilog, self._late_epilog = self._late_epilog(), None
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Raise what argparse has to say."""
        raise ArgumentError(f"{message.removeprefix('argument ')}; `{self.prog} --help` lists what there is.")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if args is not None:
            self._check_options(args)
        return super().parse_known_args(args, namespace)

    def _check_options(self, args: Sequence[str]) -> None:
        """Refuse an option that there is not, before argparse misses what was meant by it."""
        known = list(self._option_string_actions)
        for arg in args:
            if arg == "--" or (self._subparsers and not arg.startswith("-")):
                return  # what follows is not for this parser
            name = arg.partition("=")[0]
            if name.startswith("--") and " " not in name and not any(one.startswith(name) for one in known):
                close = difflib.get_close_matches(name, known, n=1)
                meant = f" (did you mean {close[0]}?)" if close else ""
                raise ArgumentError(f"{self.prog} has no option {name}{meant}; `{self.prog} --help` lists them.")

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if (
            not arg_string.strip()
            and action.type in (None, Path)
            and not action.choices
            and action.metavar not in _TEXTS
        ):
            leave_it = ", or leave it out" if action.option_strings else ""
            raise ArgumentError(f"{_name(action)} is empty; give it a value{leave_it}.")
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            kind = _KINDS.get(action.type)
            said = f"is {arg_string!r}; expected {kind}." if kind else str(error.message)
            raise ArgumentError(f"{_name(action)} {said}") from None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        close = did_you_mean(str(value), choices)
        if isinstance(action, argparse._SubParsersAction):
            what = str(action.metavar or "command").lower()
            raise ArgumentError(f"there is no {what} {value!r}{close}; {self.prog} has {', '.join(choices)}.")
        listed = " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))
        raise ArgumentError(f"{_name(action)} is {value!r}{close}; expected {listed}.")


def at_least(low: int) -> Callable[[str], int]:
    """A type for integers of at least `low`."""

    def read(text: str) -> int:
        try:
            if (value := int(text)) >= low:
                return value
        except ValueError:
            raise argparse.ArgumentTypeError(f"is {text!r}; expected an integer.") from None
        raise argparse.ArgumentTypeError(f"is {value}; expected at least {low}.")

    return read


def _name(action: argparse.Action) -> str:
    return max(action.option_strings, key=len, default=str(action.metavar or action.dest))


class _Help(argparse.RawDescriptionHelpFormatter):
    """Adds the default to an option's help, where there is one and the help does not speak of it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        words = action.help or ""
        says_nothing = action.default in (None, argparse.SUPPRESS, "", [], ()) or isinstance(action.default, bool)
        if says_nothing or not action.option_strings or "(default" in words:
            return words
        return f"{words} (default: %(default)s)".strip()
