"""Pairs that are copies of each other, or nearly: on both sides of a split they would be learnt by heart and tested."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from truthkit.steering.extraction.pairs import Pair
from truthkit.text.fingerprint import fingerprint

NEAR = 0.8
"""Pairs that share this much of their runs of four characters are near-copies [our choice]."""

_MOST = 2000
"""No more pairs are compared with those that are held out [our choice]: enough to see whether there are near-copies."""


def same_text(pair: Pair) -> str:
    """What copies of a pair have in common: all but case, accents, punctuation and spacing, where words are left."""
    whole = json.dumps([pair.prompt, pair.positive, pair.negative], default=id, ensure_ascii=False)
    return fingerprint(whole) or whole


def near_copies(pairs: Sequence[Pair], fit: Sequence[int], held: Sequence[int]) -> int:
    """How many of the pairs `held` are near-copies of one of the pairs `fit`."""
    holders: dict[str, list[int]] = {}
    sizes = {}
    for number in held:
        runs = _runs(pairs[number])
        sizes[number] = len(runs)
        for run in runs:
            holders.setdefault(run, []).append(number)
    found: set[int] = set()
    for number in fit[:_MOST]:
        runs = _runs(pairs[number])
        shared = Counter(other for run in runs for other in holders.get(run, ()))
        found |= {other for other, count in shared.items() if count >= NEAR * (sizes[other] + len(runs) - count)}
    return len(found)


def _runs(pair: Pair) -> set[str]:
    text = same_text(pair)
    return {text[i : i + 4] for i in range(max(1, len(text) - 3))}
