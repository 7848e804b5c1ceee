"""Given choices behind prompts with images: which are read together, and under which decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from truthkit.activations.hooks import Hooked
from truthkit.decoding.engine.decoder import Decoder
from truthkit.errors import ArgumentError
from truthkit.evaluation.running.item import Item
from truthkit.images.reading import read_image
from truthkit.likelihood.behind_images import scores_behind_images, takes_branches, takes_many
from truthkit.text.encode import encode_prompts, written_prompts
from truthkit.text.tokens import text_ids, text_tokenizer

_Texts = list[list[int]]
_Job = list[tuple[int, _Texts]]
"""Prompts that are read at a time, by number, each with some of its texts."""


@dataclass(frozen=True)
class ImageChoices:
    """How choices behind images are put to a model.

    A prompt is what a written answer is asked with. A choice and its prompt are tokenised together and cut behind the
    prompt; the space that a choice begins with is left out where a chat template ends its prompt in white space.

    Attributes:
        model, processor: as from `tk.load`.
        build: the decoder for prompts of these items and their images; one that changes nothing for the model alone.
        size: prompts at a time, and twice as many choices.
        share_prefix: read a prompt once for all its choices; else once for each, image and all.
        steerings: those at work on the model.
    """

    model: Any
    processor: Any
    build: Callable[[Sequence[Item], list[list[Any]]], Decoder]
    size: int
    share_prefix: bool
    steerings: Sequence[Hooked]

    def scores(self, batch: Sequence[Item], *, raw: bool = False) -> list[dict[str, list[float]]]:
        """The log-probability of every choice, as `log_probs`; with `raw`, under a contrast its own scores too, `raw`.

        Raises:
            ArgumentError: an item has no image; a choice is empty, or not made of whole tokens behind the prompt.
        """
        if none := [item for item in batch if not item.images]:
            raise ArgumentError(f"item {none[0].id} has no image, and others of its batch have; ask them apart.")
        members: dict[tuple[Any, ...], list[Item]] = {}
        for item in batch:
            members.setdefault(_prompt(item), []).append(item)
        prompts = [own[0] for own in members.values()]
        texts = [[ids for item in own for ids in self._tokens(item)] for own in members.values()]
        found: dict[str, list[list[float]]] = {"log_probs": [[] for _ in prompts]}
        for job in self._jobs(prompts[0], texts):
            for name, scores in self._read([prompts[n] for n, _ in job], [some for _, some in job], raw=raw).items():
                of_prompts = found.setdefault(name, [[] for _ in prompts])
                for (n, _), some in zip(job, scores, strict=True):
                    of_prompts[n] += some
        ends = {name: dict(zip(members, map(iter, of_prompts), strict=True)) for name, of_prompts in found.items()}
        return [
            {name: [next(end[_prompt(item)]) for _ in item.choices] for name, end in ends.items()} for item in batch
        ]

    def _jobs(self, first: Item, texts: Sequence[_Texts]) -> Iterator[_Job]:
        """All texts: those behind one prompt together, several prompts at a time where that can be."""
        decoder = self.build([first], _seen([first]))
        if self.share_prefix and takes_branches(decoder):
            size = self.size if takes_many(decoder, self.steerings) else 1
            every = list(enumerate(texts))
            yield from (every[start : start + size] for start in range(0, len(every), size))
            return
        size = self.size if self.share_prefix else 1
        for number, own in enumerate(texts):
            yield from ([(number, [text]) for text in own[start : start + size]] for start in range(0, len(own), size))

    def _read(self, items: Sequence[Item], texts: Sequence[_Texts], *, raw: bool) -> dict[str, list[list[float]]]:
        images = _seen(items)
        inputs = encode_prompts(self.processor, [item.prompt for item in items], images, raw=items[0].raw)
        with self.build(items, images) as session:
            both = raw and session.contrasts
            with session.of_log_probabilities() if both else nullcontext():
                log_probs, sums = scores_behind_images(
                    session, inputs, texts, at_a_time=2 * self.size, steerings=self.steerings
                )
        return {"log_probs": log_probs} | ({"raw": sums} if both else {})

    def _tokens(self, item: Item) -> _Texts:
        """The tokens of every choice behind its prompt."""
        tokenizer = text_tokenizer(self.processor, "a choice")
        (prompt,) = written_prompts(self.processor, [item.prompt], [len(item.images)], raw=item.raw)
        before, found = text_ids(tokenizer, prompt), []
        for choice in item.choices:
            text = choice.removeprefix(" ") if prompt[-1:].isspace() and not item.raw else choice
            row = text_ids(tokenizer, prompt + text)
            if row[: len(before)] != before or len(row) == len(before):
                raise ArgumentError(
                    f"{choice[:60]!r} has no tokens of its own behind {prompt[-20:]!r}"
                    + (": this tokenizer merges the two" if text else "")
                    + ". Give another text, one that begins with a space for one."
                )
            found.append(row[len(before) :])
        return found


def _prompt(item: Item) -> tuple[Any, ...]:
    """What is read before its choices."""
    return item.images, item.prompt, item.raw, item.context


def _seen(items: Sequence[Item]) -> list[list[Any]]:
    return [[read_image(path) for path in item.images] for item in items]
