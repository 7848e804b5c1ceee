"""What a benchmark is to the runner."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from truthkit.evaluation.running.item import Item
from truthkit.files.writing import content_key

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
        unit: how many items next to each other belong together; some items are whole units.
        greedy: answers are never drawn.
        families: what each item belongs to, where items of different questions and pictures belong together; none: no
            such thing.
        finish: adds to the config of the whole run's score, over the items with these numbers, what is no function of
            totals.
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
    finish: Callable[[Score, Sequence[int]], Score] | None = None
    families: tuple[Hashable, ...] = ()

    def part(self, numbers: Sequence[int], **about: Any) -> Task:
        """The task of these of its items only; `about` goes to its config."""
        own, score, finish = list(numbers), self.score, self.finish
        return replace(
            self,
            items=[self.items[number] for number in own],
            score=lambda which, outputs: score([own[place] for place in which], outputs),
            finish=None if finish is None else lambda found, which: finish(found, [own[place] for place in which]),
            families=tuple(self.families[number] for number in own) if self.families else (),
            config=self.config | about,
        )

    def some(self, limit: int | None, *, seed: int = 0, first: bool = False) -> list[Item]:
        """So many items or a few more, whole units, in the order of the data; all for None.

        Drawn by seed and content, so that a larger limit adds to a smaller one's; or the first ones, which a file that
        is sorted makes one-sided.
        """
        if limit is None:
            return self.items
        starts, count = range(0, len(self.items), self.unit), -(-limit // self.unit)
        drawn = starts if first else sorted(starts, key=lambda start: content_key(self.items[start].key, seed))
        return [item for start in sorted(drawn[:count]) for item in self.items[start : start + self.unit]]
