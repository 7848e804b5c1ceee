"""Options of a function for the command line: names, kinds and defaults from its signature, help from its docstring."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from truthkit.errors import ArgumentError, did_you_mean

_READ: dict[Any, tuple[Callable[[str], Any], str, str]] = {
    Path: (Path, "a path", "PATH"),
    str: (str, "text", "TEXT"),
    int: (int, "an integer", "N"),
    float: (float, "a number", "X"),
}
"""How a text becomes a value of a kind, what was expected where it can't, and how the help writes it."""


@dataclass(frozen=True)
class Option:
    """A keyword argument as the command line takes it.

    Attributes:
        name: of the argument.
        kind: Path, str, int, float or bool.
        choices: the texts that it may be, where it may not be any.
        default: the argument's.
        help: its entry in the docstring, with the default where that doesn't say it.
    """

    name: str
    kind: type
    choices: tuple[str, ...]
    default: Any
    help: str

    @property
    def flag(self) -> str:
        """What is typed: `--drop-last`."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def metavar(self) -> str:
        """What stands for its value in the help."""
        return "|".join(self.choices) or _READ[self.kind][2]

    def read(self, given: str | bool) -> Any:
        """The argument's value.

        Raises:
            ArgumentError: the text is of another kind, or none of the choices.
        """
        if isinstance(given, bool) or self.kind is bool:
            if isinstance(given, bool) and self.kind is bool:
                return given
            raise ArgumentError(f"{self.flag} {'takes no' if self.kind is bool else 'needs a'} value.")
        if self.choices and given not in self.choices:
            guess = did_you_mean(given, self.choices)
            raise ArgumentError(f"{self.flag} is {given!r}{guess}; expected one of {', '.join(self.choices)}.")
        read, expected, _ = _READ[self.kind]
        try:
            return read(given)
        except ValueError:
            raise ArgumentError(f"{self.flag} is {given!r}; expected {expected}.") from None


def options_of(function: Callable[..., Any]) -> dict[str, Option]:
    """The options of a function, its keyword-only arguments, by name.

    Raises:
        ArgumentError: one is annotated with something other than Path, str, int, float, bool or a Literal of texts, or
            has no default.
    """
    found = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            kind, choices = _kind(function, parameter)
            described = entry(function, parameter.name)
            found[parameter.name] = Option(parameter.name, kind, choices, parameter.default, described)
    return found


def summary(function: Callable[..., Any]) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())


def body(function: Callable[..., Any]) -> str:
    """What a docstring says between its first paragraph and its sections."""
    text = (inspect.getdoc(function) or "").partition("\n\n")[2]
    return re.split(r"^(?:Args|Returns|Raises|Examples?):$", text, maxsplit=1, flags=re.MULTILINE)[0].strip()


def entry(function: Callable[..., Any], name: str) -> str:
    """The entry of an argument in a docstring, on one line; with the default where it doesn't say one."""
    pattern = rf"^ {{4}}{name}: (.*?)(?=^ {{4}}\w|^\w|\Z)"
    found = re.search(pattern, inspect.getdoc(function) or "", re.MULTILINE | re.DOTALL)
    text = " ".join(found[1].split()) if found else ""
    default = inspect.signature(function).parameters[name].default
    if default is inspect.Parameter.empty or default is None or default == "" or "default" in text:
        return text
    shown = {True: "yes", False: "no"}[default] if isinstance(default, bool) else default
    return f"{text} (default: {shown})"


def _kind(function: Callable[..., Any], parameter: inspect.Parameter) -> tuple[type, tuple[str, ...]]:
    """The type that an option's text becomes, and its choices."""
    where = f"option {parameter.name!r} of {function.__module__}.{function.__name__}"
    if parameter.default is parameter.empty:
        raise ArgumentError(f"{where} has no default; give it one.")
    alone = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    hint = get_type_hints(alone, globalns=function.__globals__)[parameter.name]
    if get_origin(hint) in (Union, UnionType):
        several = [one for one in get_args(hint) if one is not type(None)]
        hint = several[0] if len(several) == 1 else hint
    if get_origin(hint) is Literal and all(isinstance(one, str) for one in get_args(hint)):
        return str, get_args(hint)
    if hint not in (*_READ, bool):
        raise ArgumentError(f"{where} is annotated {hint}; expected {', '.join(k.__name__ for k in _READ)} or bool.")
    return hint, ()
