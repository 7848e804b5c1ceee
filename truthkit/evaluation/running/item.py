"""One thing that a benchmark asks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from truthkit.errors import ArgumentError
from truthkit.files.writing import content_key

if TYPE_CHECKING:
    from truthkit.decoding.spec import DecoderSpec


@dataclass(frozen=True)
class Item:
    """One thing to ask.

    Attributes:
        id: unique in the task.
        prompt: a user's message; with `raw`, text to go on from.
        images: paths of the images in front of it.
        choices: continuations whose log-probability is asked for, the space in front included; none: write an answer.
        raw: no chat template.
        context: the part of the prompt, word for word, that decoders with a `context` compare it with and without;
            none: there is no such part.

    Raises:
        ArgumentError: the context does not stand in the prompt, or nothing is left without it.
    """

    id: str
    prompt: str
    images: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    raw: bool = False
    context: str = ""

    def __post_init__(self) -> None:
        if not self.context:
            return
        if self.context not in self.prompt:
            raise ArgumentError(
                f"item {self.id}: the context {self.context[:60]!r} is not in its prompt; give it as it stands there."
            )
        if not self.prompt.replace(self.context, "", 1).strip():
            raise ArgumentError(f"item {self.id}: nothing is left of its prompt without the context; ask something.")

    @property
    def key(self) -> str:
        """Of the content, wherever the item stands in its file and in whatever folder its images lie."""
        context = [self.context] if self.context else []
        return content_key(self.id, self.prompt, [Path(image).name for image in self.images], self.choices, *context)


def check_context(items: Iterable[Item], decoder: DecoderSpec) -> None:
    """See that every item has what the decoder compares it with.

    Raises:
        ArgumentError: the decoder takes a context, and an item has none.
    """
    if decoder.takes("context") and (bare := next((item for item in items if not item.context), None)):
        raise ArgumentError(
            f"decoder {decoder.text} compares prompts with and without their context, and item {bare.id} has none; use "
            "a task whose items have one, or another decoder."
        )
