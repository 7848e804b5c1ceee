"""Errors that truthkit raises on purpose.

Every one also inherits the builtin that callers already catch, names the argument, says what was found and what was
expected, and ends with the way out.
"""

import difflib
from collections.abc import Iterable


class TruthkitError(Exception):
    """Base of every error raised on purpose."""


class ArgumentError(TruthkitError, ValueError):
    """An argument has a value that cannot work."""


class ModelError(TruthkitError, ValueError):
    """The model does not have what a method needs."""


class AttachError(TruthkitError, RuntimeError):
    """A decoder is attached where another one already is."""


class NotAvailableError(TruthkitError, OSError):
    """A file, wheel or hub repository is neither on this machine nor reachable."""


class MissingExtraError(TruthkitError, ImportError):
    """A feature needs an optional dependency that is not installed."""


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """What to put behind a name that is unknown: " (did you mean ...?)", or nothing where no name is like it."""
    close = difflib.get_close_matches(word.lower().replace("-", "_").replace(" ", "_"), list(names), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
