"""Items that a decoder answers right and its baseline wrong, or the other way round."""

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
        correct: whether that is right.
        note: what is wrong with it, where the scorer says.
    """

    labels: tuple[str, ...]
    text: str
    correct: bool
    note: str


@dataclass(frozen=True)
class Flip:
    """An item whose answer changed between right and wrong, with the answers of all runs.

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


def choose_flips(
    changed: Mapping[str, tuple[Sequence[Pair], Sequence[Pair]]],
    runs: Mapping[str, Sequence[Item]],
    limit: int,
    images: Path | None = None,
) -> list[Flip]:
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
    by_key = {label: {item["key"]: item for item in items} for label, items in runs.items()}
    return [_flip({label: items[key] for label, items in by_key.items() if key in items}, images) for key in found]


def _flip(items: Mapping[str, Item], images: Path | None) -> Flip:
    """The same item in several runs."""
    first = next(iter(items.values()))
    alike: dict[tuple[str, bool, str], list[str]] = {}
    for label, item in items.items():
        alike.setdefault((said(item), bool(item.get("correct")), _note(item)), []).append(label)
    return Flip(
        str(first.get("question", first["prompt"])),
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
    else:
        text = str(output)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text):,} characters)"


def _truth(item: Item) -> str:
    if "label" in item:
        return str(item["label"])
    truth = item.get("ground_truth")
    return ", ".join(map(str, truth)) if isinstance(truth, list) else ""


def _note(item: Item) -> str:
    if isinstance(item.get("hallucinated"), list) and item["hallucinated"]:
        return f"not in the image: {', '.join(dict.fromkeys(map(str, item['hallucinated'])))}"
    if "prediction" in item and item["prediction"] is None and isinstance(item["output"], str):
        return "read as neither yes nor no"
    return ""
