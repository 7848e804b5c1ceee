"""What a decoder was built with, kept so that it can be described."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from truthkit.decoding.engine.registry import FROM_PROMPT

_NOTHING = object()


def kept(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that keeps its arguments; with them a decoder is built, and changes no more."""

    @functools.wraps(init)
    def build(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if type(self).__init__ is build:  # else a subclass goes on building
            vars(self)["_built_with"] = inspect.signature(init).bind(self, *args, **kwargs).arguments

    return build


def is_built(decoder: Any) -> bool:
    """Whether the constructor is done."""
    return "_built_with" in vars(decoder)


def given_options(decoder: Any) -> dict[str, Any]:
    """The options of a decoder that are not as by default and hold no part of the prompt."""
    given, default = vars(decoder)["_built_with"], defaults(type(decoder))
    known = {key: given[key] for key in _parameters(type(decoder)) if key in given and key not in FROM_PROMPT}
    return {key: _plain(value) for key, value in known.items() if not _same(value, default.get(key, _NOTHING))}


def defaults(cls: type) -> dict[str, Any]:
    """The options of a decoder class that have a default."""
    return {key: one.default for key, one in _parameters(cls).items() if one.default is not one.empty}


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(cls).parameters.items()
    return {key: one for key, one in found if key not in ("model", "processor") and one.kind not in several}


def _plain(value: Any) -> Any:
    """Layer numbers and names as a list, whatever sequence they were."""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return list(value) if several and all(isinstance(one, int | str) for one in value) else value


def _same(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, bool | int | float | str) and bool(value == default))
