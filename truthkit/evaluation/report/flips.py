"""What was asked, and how every run answered; among it what a decoder has right and its baseline wrong, or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truthkit.evaluation.report.compare import Pair

Item = Mapping[str, Any]
_LONGEST = 1200  # characters of an answer
_NONE_CHOSEN = "no choice is above the others"


@dataclass(frozen=True)
class Answer:
    """What one run answered, or several alike.

    Attributes:
        labels: of these runs.
        text: the answer; of choices, the one that was chosen.
        correct: whether that is right; None where the scorer does not say.
        note: what is wrong with it, where the scorer says.
        invented: words of it that name what is not in the image, in the scorer's form.
    """

    labels: tuple[str, ...]
    text: str
    correct: bool | None
    note: str
    invented: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """An item with the answers of all runs.

    Attributes:
        question: as it was asked.
        truth: the right answer, as far as the item has one.
        category: of the item, or nothing.
        images: their paths, whether they are there or not.
        answers: each once, in the order of the runs.
    """

    question: str
    truth: str
    category: str
    images: tuple[Path, ...]
    answers: list[Answer]

    @property
    def flipped(self) -> bool:
        """Whether some runs are right and others wrong; of what is neither, whether they answer differently."""
        judged = {answer.correct for answer in self.answers}
        return {True, False} <= judged if judged - {None} else len(self.answers) > 1


def choose_flips(
    changed: Mapping[str, tuple[Sequence[Pair], Sequence[Pair]]],
    runs: Mapping[str, Sequence[Item]],
    limit: int,
    images: Path | None = None,
) -> list[Asked]:
    """At most `limit` flipped items: in turn one that a run gained, one that it lost, and so on with the next run.

    Within each the order is that of the items' keys, which is as good as drawn by lot and always the same.

    Args:
        changed: for every tested run's label, items gained and lost.
        runs: the items of all runs, by label.
        limit: at most so many.
        images: a folder to look for the images in first.
    """
    piles = [sorted(pair[0]["key"] for pair in pairs) for both in changed.values() for pairs in both]
    found: dict[str, None] = {}
    for place in range(max(map(len, piles), default=0)):
        for pile in piles:
            if place < len(pile) and len(found) < limit:
                found.setdefault(pile[place])
    answers = _by_key(runs)
    return [_asked(answers[key], images) for key in found]


def all_asked(runs: Mapping[str, Sequence[Item]], limit: int | None = None, images: Path | None = None) -> list[Asked]:
    """Every item that a run has, in the order of the first run's; of more than `limit` those that flipped go first."""
    found = [_asked(items, images) for items in _by_key(runs).values()]
    if limit is None or len(found) <= limit:
        return found
    kept = sorted(sorted(range(len(found)), key=lambda i: not found[i].flipped)[:limit])
    return [found[i] for i in kept]


def _by_key(runs: Mapping[str, Sequence[Item]]) -> dict[str, dict[str, Item]]:
    """By key, then by label."""
    found: dict[str, dict[str, Item]] = {}
    for label, items in runs.items():
        for item in items:
            found.setdefault(item["key"], {})[label] = item
    return found


def _asked(items: Mapping[str, Item], images: Path | None) -> Asked:
    """The same item in several runs."""
    first = next(iter(items.values()))
    alike: dict[tuple[str, bool | None, str, tuple[str, ...]], list[str]] = {}
    for label, item in items.items():
        correct = item.get("correct")
        judged = correct if isinstance(correct, bool) else None
        alike.setdefault((said(item), judged, _note(item), _invented(item)), []).append(label)
    return Asked(
        _cut(str(first.get("question", first["prompt"]))),
        _truth(first),
        str(first.get("category") or ""),
        tuple(_moved(Path(path), images) for path in first.get("images") or ()),
        [Answer(tuple(labels), *answer) for answer, labels in alike.items()],
    )


def _moved(path: Path, folder: Path | None) -> Path:
    """The path's longest ending that is in `folder`; the path itself where none is."""
    if folder is not None:
        parts = path.relative_to(path.anchor).parts
        for start in range(len(parts)):
            if (found := folder.joinpath(*parts[start:])).is_file():
                return found
    return path


def said(item: Item) -> str:
    """What an item was answered; of given choices, the one that was chosen."""
    output = item["output"]
    if isinstance(output, str):
        text = output
    elif found := [item[name] for name in ("prediction", "answer", "text") if isinstance(item.get(name), str)]:
        text = found[0]
    elif "prediction" in item:
        text = _NONE_CHOSEN
    elif isinstance(output, list) and output and all(isinstance(one, int | float) for one in output):
        text = f"choice {output.index(max(output)) + 1} of {len(output)}"
    elif isinstance(output, dict) and "scores" in output:
        pairs = zip(output.get("answers", ()), output["scores"], strict=False)
        text = "\n".join(f"{one} [score {score:.3g}]" for one, score in pairs)
    else:
        text = str(output)
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text):,} characters)"


def _truth(item: Item) -> str:
    if "label" in item:
        return str(item["label"])
    truth = item.get("ground_truth")
    return ", ".join(map(str, truth)) if isinstance(truth, list) else ""


def _invented(item: Item) -> tuple[str, ...]:
    """What CHAIR, AMBER and their like call hallucinated, each once."""
    found = item.get("hallucinated")
    return tuple(dict.fromkeys(map(str, found))) if isinstance(found, list) else ()


def _note(item: Item) -> str:
    if invented := _invented(item):
        return f"not in the image: {', '.join(invented)}"
    if "prediction" in item and item["prediction"] is None and isinstance(item["output"], str):
        return "read as neither yes nor no"
    return ""
