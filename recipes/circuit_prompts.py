"""Prompts of two tasks that are solved by finding what is named twice: indirect objects and coloured objects.

Each comes with a second prompt of as many tokens in which the word that repeats an earlier one is replaced, so that
nothing points to an answer any longer. Prompts of one length and one place of that word make a batch, without padding.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

import truthkit as tk
from truthkit.text.tokens import common_start, text_ids

NAMES = (
    "Mary John Tom James Anna Paul Mark Sarah Emma Peter Alice Kate David Simon Laura Jack Lucy Henry George Martin "
    "Daniel Rachel Michael Robert Susan Richard Thomas William Elizabeth Andrew"
)
PLACES = "station office garden library market museum hospital kitchen bridge beach"
THINGS = "letter book key ring map ball lamp basket drink ticket"
STORIES = (
    "After {a} and {b} left the {place}, {s} handed a {thing} to",
    "While {a} and {b} were waiting at the {place}, {s} passed the {thing} to",
    "Last week {a} and {b} met at the {place}, and {s} brought a {thing} to",
    "Then {a} and {b} sat down near the {place}. After a while {s} gave the {thing} to",
)

COLOURS = "red blue green yellow black white brown purple orange pink"
OBJECTS = "pencil book cup ball key box hat phone bag ring bottle lamp coin plate shirt knife"
SHOWN = (
    "Q: On the table, there is a silver clock, a gold rope and a gray candle. What color is the rope?\nA: gold\n"
    "Q: On the {place}, there is a {c0} {o0}, a {c1} {o1} and a {c2} {o2}. What color is the {asked}?\nA:"
)
SURFACES = "table desk floor shelf bed"

TASKS = {"ioi": "indirect objects", "colours": "coloured objects"}


class Item(NamedTuple):
    """A prompt, the same without the repetition, and what may follow, all without a space in front."""

    prompt: str
    other: str
    right: str
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Batch:
    """Items of one length.

    Attributes:
        items: their numbers in the list that they come from.
        ids: tokens of the prompts, (items, width).
        other: of the prompts without the repetition.
        start: the first token in which a prompt and its other differ.
        answers: the token of the right answer, then of the wrong ones, (items, answers).
    """

    items: list[int]
    ids: torch.Tensor
    other: torch.Tensor
    start: int
    answers: torch.Tensor

    @property
    def wrong_places(self) -> torch.Tensor:
        """Where the wrong answers stand in the prompts, bool, (items, width)."""
        return (self.ids[:, :, None] == self.answers[:, None, 1:]).any(dim=-1)


def single_tokens(tokenizer: Any, words: str, least: int) -> list[str]:
    """Those words that are one token behind a space.

    Raises:
        ArgumentError: fewer than `least` are.
    """
    before, unknown = text_ids(tokenizer, "a"), tokenizer.unk_token_id
    ids = {word: text_ids(tokenizer, f"a {word}") for word in words.split()}
    found = [word for word, tokens in ids.items() if tokens[:-1] == before and tokens[-1] != unknown]
    if len(found) < least:
        raise tk.ArgumentError(
            f"the tokenizer has a token of its own for {len(found)} of the words {words[:40]!r} …; the task needs "
            f"{least}. Take a model with another tokenizer."
        )
    return found


def make_items(task: str, tokenizer: Any, count: int, seed: str) -> list[Item]:
    """So many items, drawn by the seed; templates, orders and the place of the right answer take turns."""
    rng = random.Random(f"{task} {seed}")
    if task == "ioi":
        names, places, things = (single_tokens(tokenizer, words, 3) for words in (NAMES, PLACES, THINGS))
        return [_story(number, rng, names, places, things) for number in range(count)]
    colours, objects = (single_tokens(tokenizer, words, 4) for words in (COLOURS, OBJECTS))
    places = single_tokens(tokenizer, SURFACES, 1)
    return [_table(number, rng, colours, objects, places) for number in range(count)]


def _story(number: int, rng: random.Random, names: list[str], places: list[str], things: list[str]) -> Item:
    giver, receiver, third = rng.sample(names, 3)
    order = (giver, receiver) if number // len(STORIES) % 2 else (receiver, giver)
    words = {"a": order[0], "b": order[1], "place": rng.choice(places), "thing": rng.choice(things)}
    story = STORIES[number % len(STORIES)]
    return Item(story.format(s=giver, **words), story.format(s=third, **words), receiver, (giver,))


def _table(number: int, rng: random.Random, colours: list[str], objects: list[str], places: list[str]) -> Item:
    seen, there = rng.sample(colours, 3), rng.sample(objects, 4)
    words = {f"c{i}": seen[i] for i in range(3)} | {f"o{i}": there[i] for i in range(3)}
    words["place"] = rng.choice(places)
    right = number % 3
    prompt, other = (SHOWN.format(asked=there[i], **words) for i in (right, 3))
    return Item(prompt, other, seen[right], tuple(colour for colour in seen if colour != seen[right]))


def batches(items: Sequence[Item], tokenizer: Any, size: int) -> Iterator[Batch]:
    """The items in batches of at most `size`.

    Raises:
        ArgumentError: a prompt and its other differ in length, so that their tokens cannot be compared one by one.
    """
    groups: dict[tuple[int, int], list[tuple[int, list[int], list[int]]]] = {}
    for number, item in enumerate(items):
        ids, other = text_ids(tokenizer, item.prompt), text_ids(tokenizer, item.other)
        if len(ids) != len(other):
            raise tk.ArgumentError(f"{item.prompt!r} and {item.other!r} differ in their number of tokens.")
        groups.setdefault((len(ids), common_start(ids, other)), []).append((number, ids, other))
    before = len(text_ids(tokenizer, "a"))
    for (_, start), group in sorted(groups.items()):
        for first in range(0, len(group), size):
            numbers, ids, others = (list(column) for column in zip(*group[first : first + size], strict=True))
            words = [(items[number].right, *items[number].wrong) for number in numbers]
            answers = [[text_ids(tokenizer, f"a {word}")[before] for word in row] for row in words]
            yield Batch(numbers, torch.tensor(ids), torch.tensor(others), start, torch.tensor(answers))
