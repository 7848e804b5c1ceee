"""Measures of open-ended text: repetition, diversity and coherence.

Source: Y. Su and N. Collier, arXiv 2210.14140, and the scripts beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from truthkit.errors import ArgumentError, MissingExtraError
from truthkit.statistics.intervals import FloatArray, ratio
from truthkit.statistics.score import Score

SIZES = (2, 3, 4)
MAUVE_NEEDS = 20
"""Texts: a cluster has ten on average, and there are two at least."""


def ngram_counts(text: str, n: int, *, drop_last: bool = True) -> tuple[int, int]:
    """How many n-grams of words a text has, distinct ones and all.

    The authors' script stops one short of the last n-gram, and so do published numbers; `drop_last=False` counts it.
    """
    words = text.split()
    last = len(words) - n + (0 if drop_last else 1)
    grams = [tuple(words[i : i + n]) for i in range(max(0, last))]
    return len(set(grams)), len(grams)


def score(
    texts: Sequence[str],
    *,
    drop_last: bool = True,
    log_probs: Sequence[float | None] | None = None,
    references: Sequence[str] | None = None,
) -> Score:
    """Shares `rep_2`, `rep_3`, `rep_4` of repeated n-grams, pooled, and `diversity`, the product of the rest of each.

    Intervals resample texts.

    Args:
        texts: the continuations.
        drop_last: as in `ngram_counts`.
        log_probs: each text's mean log-probability per token under a scoring model, None for an empty one; their mean
            is `coherence`.
        references: human continuations of the same prompts; the same measures of theirs are `reference_rep_2` ...

    Raises:
        ArgumentError: other than one of these per text.
    """
    for name, given in (("log_probs", log_probs), ("references", references)):
        if given is not None and len(given) != len(texts):
            raise ArgumentError(f"{name} has {len(given)} entries for {len(texts)} texts; expected one for each.")
    sides = {"": texts, "reference_": references} if references is not None else {"": texts}
    rows = []
    for number in range(len(texts)):
        row: list[float] = [
            value
            for side in sides.values()
            for n in SIZES
            for value in ngram_counts(side[number], n, drop_last=drop_last)
        ]
        if log_probs is not None:
            mean = log_probs[number]
            row += [0.0, 0.0] if mean is None else [1.0, mean]
        rows.append(row)
    width = 2 * len(SIZES)

    def measure(totals: FloatArray) -> dict[str, FloatArray]:
        found: dict[str, FloatArray] = {}
        for side, prefix in enumerate(sides):
            part = _measure(totals[..., width * side : width * (side + 1)])
            found |= {prefix + name: values for name, values in part.items()}
        if log_probs is not None:
            found["coherence"] = ratio(totals[..., -1], totals[..., -2])
        return found

    items: list[dict[str, Any]] = [{"text": text} for text in texts]
    for number, item in enumerate(items):
        counts = [ngram_counts(texts[number], n, drop_last=drop_last) for n in SIZES]
        item |= {f"rep_{n}": 1 - kept / count if count else 0.0 for n, (kept, count) in zip(SIZES, counts, strict=True)}
        if log_probs is not None and log_probs[number] is not None:
            item["coherence"] = log_probs[number]
    config = {"task": "open-ended", "texts": len(items), "drop_last": drop_last}
    columns = width * len(sides) + (0 if log_probs is None else 2)
    counts_of_all = np.asarray(rows, float).reshape(-1, columns)
    return Score(counts_of_all, list(range(len(items))), measure, items, config, shares=log_probs is None)


def coherence(log_probs: Iterable[ArrayLike]) -> float:
    """Mean over texts of the continuation's mean log-probability per token, under a scoring model; empty ones are out.

    Args:
        log_probs: of each continuation's tokens after its prompt; (tokens,) each.
    """
    means = [float(np.mean(values)) for values in map(np.asarray, log_probs) if values.size]
    if not means:
        raise ArgumentError("log_probs has no continuation with a token; expected at least one.")
    return float(np.mean(means))


def mauve(features: ArrayLike, references: ArrayLike, *, seed: int = 0) -> float:
    """How near texts are to human ones as distributions (K. Pillutla and others, arXiv 2102.01454), from 0 to 1.

    Depends on the model that the features are of, GPT-2 large in publications, on how many texts there are
    (hundreds are wanted) and, through k-means, on the seed.

    Args:
        features: a model's last hidden state of each text; (texts, features).
        references: of human texts.
        seed: of the clustering.

    Raises:
        MissingExtraError: mauve-text is not installed.
        ArgumentError: fewer than 20 of one kind.
    """
    try:
        from mauve import compute_mauve
    except ImportError:
        raise MissingExtraError("MAUVE needs mauve-text: pip install mauve-text.") from None
    sides = [np.asarray(side, np.float32) for side in (features, references)]
    if min(map(len, sides)) < MAUVE_NEEDS:
        raise ArgumentError(f"there are {len(sides[0])} texts and {len(sides[1])} references; MAUVE needs 20 of each.")
    return float(compute_mauve(p_features=sides[1], q_features=sides[0], seed=seed, verbose=False).mauve)


def _measure(totals: FloatArray) -> dict[str, FloatArray]:
    kept = [ratio(totals[..., 2 * i], totals[..., 2 * i + 1]) for i in range(len(SIZES))]
    # A text too short for any n-gram repeats nothing.
    kept = [np.where(totals[..., 2 * i + 1] == 0, 1.0, share) for i, share in enumerate(kept)]
    return {**{f"rep_{n}": 1 - share for n, share in zip(SIZES, kept, strict=True)}, "diversity": np.prod(kept, axis=0)}
