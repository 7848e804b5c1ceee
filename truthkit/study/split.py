"""A task's items in two parts, development and test, by what they say; what belongs together stays together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from truthkit.errors import ArgumentError
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.task import Task
from truthkit.files.writing import content_key, file_sha256

_ALL = 1 << 64
"""How many values the 16 hexadecimal digits of a key have."""


class Parts(NamedTuple):
    """Numbers of the items of both parts, in the order of the data."""

    development: list[int]
    test: list[int]


def said(item: Item) -> str:
    """A hash of what an item says: its prompt, choices and the pixels' files, not its id, its place or file names."""
    return content_key(item.prompt, item.choices, [file_sha256(path) for path in item.images])


def marks(item: Item) -> list[str]:
    """What items of one family have in common: the file of an image; without images the prompt, or it less its context.

    A question of two passages is one question, and so is a picture that is asked about twice.
    """
    if item.images:
        return [file_sha256(path) for path in item.images]
    without = item.prompt.replace(item.context, "", 1) if item.context else item.prompt
    return list(dict.fromkeys((item.prompt, without.strip())))


def families(task: Task) -> list[list[int]]:
    """Numbers of items that belong together: by a shared mark, by `Task.families`, or in one `Task.unit`."""
    parent = list(range(len(task.items)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    first: dict[Hashable, int] = {}
    for number, item in enumerate(task.items):
        own: list[Hashable] = [*marks(item), ("unit", number // task.unit)]
        own += [("family", task.families[number])] if task.families else []
        for mark in own:
            parent[root(number)] = root(first.setdefault(mark, number))
    found: dict[int, list[int]] = {}
    for number in range(len(task.items)):
        found.setdefault(root(number), []).append(number)
    return list(found.values())


def split(
    task: Task, share: float, *, seed: int = 0, limit: int | None = None, development_limit: int | None = None
) -> Parts:
    """Both parts of a task: whole families, by a hash of what their items say.

    A family's hash says to which part it goes, so that it goes there in whatever order, file or company it comes, and
    items that are added move no other. Of a part with a limit the families with the smallest hashes are taken.

    Args:
        task: with all its items.
        share: of the families that go to the development part, on average.
        seed: another one gives other parts.
        limit: items of the test part, at most.
        development_limit: items of the development part, at most.
    """
    keyed = sorted((content_key(seed, min(said(task.items[n]) for n in one)), one) for one in families(task))
    development = [one for key, one in keyed if int(key, 16) < share * _ALL]
    test = [one for key, one in keyed if int(key, 16) >= share * _ALL]
    return Parts(_up_to(development, development_limit), _up_to(test, limit))


def check_apart(development: Sequence[Item], test: Sequence[Item], where: str) -> None:
    """See that nothing is in both parts.

    Raises:
        ArgumentError: two items have a picture or a question in common; the message names them.
    """
    seen = {mark: item for item in development for mark in marks(item)}
    shared = [(seen[mark], item) for item in test for mark in marks(item) if mark in seen]
    if shared:
        one, other = shared[0]
        number = len({item.key for _, item in shared})
        what = "show the same picture" if one.images else "ask the same"
        raise ArgumentError(
            f"{where}: items {one.id!r} of the development data and {other.id!r} of the test data {what} "
            f"({other.prompt[:60]!r}), and {number} of {len(test)} test items are in both; what is chosen on one part "
            "must be unknown to the other. Take them out of one file, or give one file, which is split."
        )


def _up_to(found: list[list[int]], limit: int | None) -> list[int]:
    taken: list[int] = []
    for one in found:
        if limit is None or len(taken) + len(one) <= limit:
            taken += one
    return sorted(taken)
