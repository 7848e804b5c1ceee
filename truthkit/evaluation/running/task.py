"""What a benchmark is to the runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.evaluation.running.item import Item

if TYPE_CHECKING:
    from truthkit.evaluation.running.asking import Ask
    from truthkit.statistics.score import Score


@dataclass(frozen=True)
class Task:
    """A benchmark with its data.

    Attributes:
        name: of its benchmark.
        items: what is asked, in the order of the data.
        score: reads the outputs of the items with these numbers, in order.
        headline: the metric that a progress bar shows, and that a report tests.
        max_new_tokens: of written answers, where the user does not say; 0 where nothing is written.
        config: what the numbers depend on.
        data: files and folders that they come from.
        ask: how a batch is asked; None is `Asking.choose` for items with choices, else `Asking.write`.
        unit: how many items next to each other belong together; a limit is rounded up to whole units.
        greedy: answers are never drawn.
        finish: adds to the config of the whole run's score what is no function of totals.
    """

    name: str
    items: list[Item]
    score: Callable[[Sequence[int], Sequence[Any]], Score]
    headline: str
    max_new_tokens: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    data: tuple[Path, ...] = ()
    ask: Ask | None = None
    unit: int = 1
    greedy: bool = False
    finish: Callable[[Score], Score] | None = None

    def first(self, limit: int | None) -> list[Item]:
        """The first so many items, whole units; all for None."""
        return self.items[: None if limit is None else -(-limit // self.unit) * self.unit]
