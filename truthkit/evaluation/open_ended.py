"""Measures of open-ended text: repetition, diversity and coherence.

Source: Y. Su and N. Collier, arXiv 2210.14140, and the scripts beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from truthkit.errors import ArgumentError
from truthkit.evaluation.intervals import FloatArray, ratio
from truthkit.evaluation.score import Score

SIZES = (2, 3, 4)


def ngram_counts(text: str, n: int, *, drop_last: bool = True) -> tuple[int, int]:
    """How many n-grams of words a text has, distinct ones and all.

    The authors' script stops one short of the last n-gram, and so do published numbers; `drop_last=False` counts it.
    """
    words = text.split()
    last = len(words) - n + (0 if drop_last else 1)
    grams = [tuple(words[i : i + n]) for i in range(max(0, last))]
    return len(set(grams)), len(grams)


def score(texts: Sequence[str], *, drop_last: bool = True) -> Score:
    """Shares `rep_2`, `rep_3`, `rep_4` of repeated n-grams, pooled, and `diversity`, the product of the rest of each.

    Intervals resample texts.
    """
    rows = [[value for n in SIZES for value in ngram_counts(text, n, drop_last=drop_last)] for text in texts]
    items = [{"text": text} for text in texts]
    config = {"task": "open-ended", "texts": len(items), "drop_last": drop_last}
    return Score(np.asarray(rows, float).reshape(-1, 2 * len(SIZES)), list(range(len(items))), _measure, items, config)


def coherence(log_probs: Iterable[ArrayLike]) -> float:
    """Mean over texts of the continuation's mean log-probability per token, under a scoring model; empty ones are out.

    Args:
        log_probs: of each continuation's tokens after its prompt; (tokens,) each.
    """
    means = [float(np.mean(values)) for values in map(np.asarray, log_probs) if values.size]
    if not means:
        raise ArgumentError("log_probs has no continuation with a token; expected at least one.")
    return float(np.mean(means))


def _measure(totals: FloatArray) -> dict[str, FloatArray]:
    kept = [ratio(totals[..., 2 * i], totals[..., 2 * i + 1]) for i in range(len(SIZES))]
    # A text too short for any n-gram repeats nothing.
    kept = [np.where(totals[..., 2 * i + 1] == 0, 1.0, share) for i, share in enumerate(kept)]
    return {**{f"rep_{n}": 1 - share for n, share in zip(SIZES, kept, strict=True)}, "diversity": np.prod(kept, axis=0)}
