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
    """How many of the pairs `held` are near-copies of one of the pairs `fit`, in what not most pairs say."""
    known = [_runs(pairs[number]) for number in fit[:_MOST]]
    often = Counter(run for runs in known for run in runs)
    template = {run for run, count in often.items() if count > max(1, len(known) / 2)}
    tested = [_runs(pairs[number]) - template for number in held]
    holders: dict[str, list[int]] = {}
    for number, runs in enumerate(tested):
        for run in runs:
            holders.setdefault(run, []).append(number)
    found: set[int] = set()
    for runs in known:
        own = runs - template
        shared = Counter(number for run in own for number in holders.get(run, ()))
        found |= {
            number for number, count in shared.items() if count >= NEAR * (len(tested[number]) + len(own) - count)
        }
    return len(found)


def _runs(pair: Pair) -> set[str]:
    text = same_text(pair)
    return {text[i : i + 4] for i in range(max(1, len(text) - 3))}
