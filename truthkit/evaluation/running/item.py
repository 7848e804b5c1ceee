"""One thing that a benchmark asks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from truthkit.files.writing import content_key


@dataclass(frozen=True)
class Item:
    """One thing to ask.

    Attributes:
        id: unique in the task.
        prompt: a user's message; with `raw`, text to go on from.
        images: paths of the images in front of it.
        choices: continuations whose log-probability is asked for, the space in front included; none: write an answer.
        raw: no chat template.
    """

    id: str
    prompt: str
    images: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    raw: bool = False

    @property
    def key(self) -> str:
        """Of the content, wherever the item stands in its file and in whatever folder its images lie."""
        return content_key(self.id, self.prompt, [Path(image).name for image in self.images], self.choices)
