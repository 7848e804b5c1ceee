"""How long the runs of a study that are left will take, at the pace of those that are done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple


class Asked(NamedTuple):
    """Items of one set, under one model."""

    set: str
    model: str
    items: int


class Pace:
    """Seconds an item, of each set from its own runs, of one without any from the same model's."""

    def __init__(self) -> None:
        self._seconds, self._items = defaultdict[str, float](float), defaultdict[str, int](int)

    def learn(self, done: Asked, seconds: float) -> None:
        """That these took so long."""
        for name in (f"set {done.set}", f"model {done.model}"):
            self._seconds[name] += seconds
            self._items[name] += done.items

    def ahead(self, left: Iterable[Asked]) -> float | None:
        """Seconds for these; None where nothing is known of a model."""
        total = 0.0
        for one in left:
            name = next((name for name in (f"set {one.set}", f"model {one.model}") if self._items[name]), None)
            if name is None:
                return None
            total += one.items * self._seconds[name] / self._items[name]
        return total
