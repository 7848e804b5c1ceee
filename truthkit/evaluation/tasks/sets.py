"""Sets that a benchmark's folder has a file for each of: a set is its items' category."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.errors import ArgumentError

if TYPE_CHECKING:
    from truthkit.statistics.score import Score


def files_of(data: Path, *patterns: str) -> list[Path]:
    """The file itself, or those of a folder whose names fit one of these patterns, by name.

    Raises:
        ArgumentError: a folder without such a file.
    """
    if not data.is_dir():
        return [data]
    if not (found := sorted({path for pattern in patterns for path in data.glob(pattern) if path.is_file()})):
        raise ArgumentError(f"{data} holds no {' and no '.join(patterns)}; expected a file, or a folder with some.")
    return found


def name_of(file: Path) -> str:
    """What a set is called: as its file, without a number in front."""
    return re.sub(r"^\d+[-_ ]*", "", file.stem) or file.stem


def by_category(score: Score, of_items: Callable[[Sequence[Mapping[str, Any]]], Score]) -> dict[str, Score]:
    """The score of each category's items apart, by `of_items`; empty if there are not two at least."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for item in score.items:
        groups.setdefault(str(item["category"]), []).append(item)
    return {name: of_items(items) for name, items in groups.items()} if len(groups) > 1 else {}
