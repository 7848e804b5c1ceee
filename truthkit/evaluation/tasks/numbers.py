"""Log-probabilities as JSON has them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from truthkit.statistics.intervals import FloatArray


def numbers(log_probs: Any) -> FloatArray:
    """An array of log-probabilities in which None, for which JSON has no number, is minus infinity."""
    return np.asarray(_filled(log_probs), float)


def _filled(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_filled(part) for part in value]
    return -math.inf if value is None else value
