"""AMBER the plain way: counters that start at a thousandth, one response after another, words compared one by one.

What the authors' `inference.py` does, written anew from a reading of it; the oracle of `test_amber.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

GROUPS = {
    "": ("existence", "state", "number", "action", "relation"),
    "_existence": ("existence",),
    "_attribute": ("state", "number", "action"),
    "_state": ("state",),
    "_number": ("number",),
    "_action": ("action",),
    "_relation": ("relation",),
}


def kind_of(annotation: dict[str, Any]) -> str:
    return {
        "discriminative-attribute-state": "state",
        "discriminative-attribute-number": "number",
        "discriminative-attribute-action": "action",
        "discriminative-hallucination": "existence",
    }.get(annotation["type"], "relation")


def discriminative(annotations: Sequence[dict[str, Any]], responses: Sequence[dict[str, Any]]) -> dict[str, float]:
    """All that evaluation type `d` prints."""
    every = ("all", *GROUPS[""])
    asked, no, said_no = (dict.fromkeys(every, 0.001) for _ in range(3))
    right, right_no, said_right = (dict.fromkeys(every, 0) for _ in range(3))
    for one in responses:
        annotation = annotations[one["id"] - 1]
        if annotation["type"] == "generative":
            continue
        for name in ("all", kind_of(annotation)):
            asked[name] += 1
            if annotation["truth"] == "yes":
                if one["response"] == "Yes":
                    right[name] += 1
            else:
                no[name] += 1
                if one["response"] == "No":
                    right[name] += 1
                    right_no[name] += 1
            if one["response"] == "No":
                said_no[name] += 1
                if annotation["truth"] == "no":
                    said_right[name] += 1
    found: dict[str, float] = {}
    for ending, members in GROUPS.items():
        names = members if ending else ("all",)

        def total(counter: dict[str, Any], names: Sequence[str] = names) -> Any:
            first, *rest = (counter[name] for name in names)
            for more in rest:
                first = first + more
            return first

        accuracy = round(total(right) / total(asked) * 100, 1)
        precision = round(total(said_right) / total(said_no) * 100, 1)
        recall = round(total(right_no) / total(no) * 100, 1)
        below = 0.001 if ending == "_existence" else 0.0001
        f1 = round(2 * (precision / 100) * (recall / 100) / ((precision / 100) + (recall / 100) + below) * 100, 1)
        found |= {f"accuracy{ending}": accuracy, f"precision{ending}": precision}
        found |= {f"recall{ending}": recall, f"f1{ending}": f1}
    return found


def generative(
    annotations: Sequence[dict[str, Any]],
    responses: Sequence[dict[str, Any]],
    association: dict[str, list[str]],
    safe_words: Sequence[str],
    nouns: Callable[[str], list[str]],
    alike: Callable[[str, str], bool],
) -> dict[str, float]:
    """All that evaluation type `g` prints."""
    known = [word for first, rest in association.items() for word in (first, *rest)]
    chair, cover, cog, clean = ([0, 0.001] for _ in range(4))
    for one in responses:
        annotation = annotations[one["id"] - 1]
        if annotation["type"] != "generative":
            continue
        found = [noun for noun in nouns(one["response"]) if noun in known]
        safe, false = (_Words(annotation[name], association) for name in ("truth", "hallu"))
        bad = 0
        for noun in found:
            if noun in safe_words:
                continue
            if noun in safe.words:
                safe.mark(safe.words.index(noun))
                continue
            if noun in false.words:
                false.mark(false.words.index(noun))
            near = [i for i, word in enumerate(false.words) if alike(noun, word)]
            if near:
                false.mark(near[0])
            near = [i for i, word in enumerate(safe.words) if alike(noun, word)]
            if near:
                safe.mark(near[0])
                continue
            bad += 1
        for counter, top, bottom in (
            (chair, bad, len(found)),
            (cover, sum(safe.seen), len(safe.seen)),
            (cog, sum(false.seen), len(false.seen)),
            (clean, int(bad == 0), 1),
        ):
            counter[0] += top
            counter[1] += bottom
    return {
        "chair": round(chair[0] / chair[1] * 100, 1),
        "cover": round(cover[0] / cover[1] * 100, 1),
        "hal": round(100 - clean[0] / clean[1] * 100, 1),
        "cog": round(cog[0] / cog[1] * 100, 1),
    }


class _Words:
    """The words of some objects, what is associated with them first, and which objects were seen."""

    def __init__(self, objects: list[str], association: dict[str, list[str]]):
        self.words: list[str] = []
        self.owners: list[int] = []
        for i, one in enumerate(objects):
            self.words += association[one]
            self.owners += [i] * len(association[one])
        self.words += objects
        self.owners += range(len(objects))
        self.seen = [0] * len(objects)

    def mark(self, word: int) -> None:
        self.seen[self.owners[word]] = 1
