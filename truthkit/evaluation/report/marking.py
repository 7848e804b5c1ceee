"""Invented objects in the words of a caption: where a scorer's forms, which are lemmas, stand in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from truthkit.evaluation.tasks.chair.singular import singularize
from truthkit.markup import Markup, element, together

_WORD = re.compile(r"[^\W_]+")


def pieces(text: str, invented: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The text in pieces, all of its characters in order, and whether a piece names one of the invented objects.

    A word is found in the plural, too; one of several words where they stand together. What a scorer found in another
    form is in no piece; see `unmarked`.
    """
    words = list(_WORD.finditer(text))
    wanted = [_WORD.findall(name.lower()) for name in invented]
    at = number = 0
    while number < len(words):
        span = max((len(name) for name in wanted if _stands(name, words[number : number + len(name)])), default=0)
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


def _stands(name: Sequence[str], words: Sequence[re.Match[str]]) -> bool:
    said = [word[0].lower() for word in words]
    return bool(name) and len(said) == len(name) and said[:-1] == name[:-1] and name[-1] in _forms(said[-1])


def _forms(word: str) -> set[str]:
    """A word, and what it may be the plural of; scorers differ in "buses" and "glasses"."""
    return {word, singularize(word), *(word[: -len(end)] for end in ("s", "es") if word.endswith(end))}
