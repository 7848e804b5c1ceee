"""Where the values of a decoder's numeric option make sense, as far as its docstring and its default tell.

Nothing is refused here: a decoder checks its own values. A slider needs two ends, and a number field beside it takes
what lies beyond them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import NamedTuple

_INTERVAL = re.compile(r"\bin [\[(](-?[\d.]+), (-?[\d.]*\d)[\])]")
_ABOVE_ZERO = re.compile(r"\bin \(0, (?!.*; 0\b)|\babove 0\b")
_FROM_TO = re.compile(r"(?<![\d.])(-?\d+)(?: \([^)]*\))? to (-?\d+)\b")
_LEAST = re.compile(r"\bat least (-?\d+)|(?<![\d.])(-?\d+) or more\b")


class Range(NamedTuple):
    """Ends of a slider, both included, and its step."""

    least: float
    most: float
    step: float


def sensible_range(words: str, default: str, kinds: Collection[str]) -> Range | None:
    """The range of an option; None where it takes other values than numbers, or nothing tells where they end.

    Both ends are the docstring's where it states them ("in (0, 1]", "0 (faint) to 999"). The lower one may be stated
    alone ("at least 1", "0 or more"); for a fraction it is 0 otherwise. The upper one is then four times the default,
    rounded up to 1, 2 or 5 times a power of ten.

    Args:
        words: the docstring's on the option.
        default: as it would be written.
        kinds: what a value may be written as, as in `OptionInfo`.
    """
    whole = list(kinds) == ["an integer"]
    if not whole and list(kinds) != ["a number"]:
        return None
    usual = float(default) if default else 0.0
    for pattern in (_INTERVAL, _FROM_TO):
        if found := pattern.search(words):
            least, most = map(float, found.groups())
            return _range(least, most, whole, words) if least <= usual <= most else None
    stated = _LEAST.search(words)
    if usual < 0 or (whole and stated is None):
        return None
    least = float(stated[1] or stated[2]) if stated else 0.0
    most = _rounded_up(4 * usual) if usual else least + 1.0
    return _range(least, most, whole, words) if least < most else None


def _range(least: float, most: float, whole: bool, words: str) -> Range:
    """In whole numbers, or in about a hundred steps; from the first one where 0 itself is left out."""
    step = 1.0 if whole else _rounded_up((most - least) / 100)
    return Range(step if _ABOVE_ZERO.search(words) else least, most, step)


def _rounded_up(value: float) -> float:
    """1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(float(f"{one * power:.6g}") for one in (1, 2, 5, 10) if one * power >= value * (1 - 1e-9))
