"""Invented objects in the words of a caption: where a scorer's forms, which are lemmas, stand in the text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from truthkit.evaluation.tasks.chair.singular import singularize
from truthkit.markup import Markup, element, together

_WORD = re.compile(r"[^\W_]+")


def pieces(text: str, invented: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The text in pieces, all of its characters in order, and whether a piece names one of the invented objects.

    A word is found in the plural, too, and where it is nowhere a noun, as the verb that some lemmatisers take for it:
    "seated". One of several words is found where they stand together. See `unmarked` for what is in no piece.
    """
    words = list(_WORD.finditer(text))
    said = [word[0].lower() for word in words]
    places: dict[int, int] = {}
    for name in (_WORD.findall(name.lower()) for name in invented):
        for at in _places(name, said, _plurals) or _places(name, said, _verbs):
            places[at] = max(len(name), places.get(at, 0))
    at = number = 0
    while number < len(words):
        span = places.get(number, 0)
        if span:
            start, stop = words[number].start(), words[number + span - 1].end()
            if start > at:
                yield text[at:start], False
            yield text[start:stop], True
            at = stop
        number += span or 1
    if at < len(text):
        yield text[at:], False


def marked(text: str, invented: Sequence[str]) -> Markup:
    """The text as HTML with these pieces marked."""
    return together(*(element("mark", piece) if found else piece for piece, found in pieces(text, invented)))


def unmarked(text: str, invented: Sequence[str]) -> list[str]:
    """Those of the names that are marked nowhere."""
    return [name for name in invented if not any(found for _, found in pieces(text, [name]))]


def _places(name: Sequence[str], said: Sequence[str], forms: Callable[[str], set[str]]) -> list[int]:
    """Where a name of some words begins; its last word in any of the forms."""
    if not name:
        return []
    last = len(name) - 1
    starts = range(len(said) - last)
    return [at for at in starts if said[at : at + last] == name[:-1] and name[-1] in forms(said[at + last])]


def _plurals(word: str) -> set[str]:
    """A word, and what it may be the plural of; scorers differ in "buses" and "glasses"."""
    return {word, singularize(word), *(word[: -len(end)] for end in ("s", "es") if word.endswith(end))}


def _verbs(word: str) -> set[str]:
    """What a word may be a form of as a verb."""
    return {word[: -len(end)] for end in ("d", "ed", "ing") if word.endswith(end)}
