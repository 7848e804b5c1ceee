"""Singular of a lower-case English noun, as `pattern.en.singularize` has it, for the `pattern` lemmatiser of CHAIR.

The package itself no longer installs on current Pythons. These are the decisions of its rule set (T. De Smedt, after
Bermi Ferrer's inflector) for words that can end up as a COCO object; its lists of rare Latin nouns are left out. Its
slips matter for equal numbers and are kept: "bus" and "glass" lose their s, "ties" becomes "ty", "collies" stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from string import ascii_lowercase

_SAME = {
    "christmas",
    "corps",
    "gallows",
    "news",
    "pliers",
    "rabies",
    "scissors",
    "series",
    "shears",
    "species",
    "swiss",
}
# Plurals of -ie come back as they are: the package looks them up, then returns the plural.
_IE = re.compile(
    "(?:auntie|beanie|birdie|bogie|collie|cookie|cutie|doggie|freebie|groupie|hankie|hippie|hoagie|hottie|indie|junkie|"
    "laddie|lingerie|meanie|newbie|nightie|oldie|pixie|rookie|softie|sweetie|toughie|veggie|weenie|yuppie|zombie)s$"
)
_IRREGULAR = {
    "axes": "axe",
    "children": "child",
    "feet": "foot",
    "geese": "goose",
    "kine": "cow",
    "leaves": "leaf",
    "loaves": "loaf",
    "men": "man",
    "moves": "move",
    "opuses": "opus",
    "our": "my",
    "oxen": "ox",
    "people": "person",
    "teeth": "tooth",
}


def _each(letters: Iterable[str], ending: str) -> tuple[str, ...]:
    return tuple(letter + ending for letter in letters)


def _but(letters: str) -> str:
    return "".join(letter for letter in ascii_lowercase if letter not in letters)


# Endings, how many letters go, what comes instead. The first that fits decides.
_RULES: tuple[tuple[tuple[str, ...], int, str], ...] = (
    (("quizzes",), 3, ""),
    (("apices", "vertices", "indices"), 4, "ex"),
    (("aliases", "statuses"), 2, ""),
    (_each("ociptvr", "i"), 1, "us"),
    (("crises", "testes"), 2, "is"),
    (("shoes",), 1, ""),
    (("oes", "buses"), 2, ""),
    (_each("ml", "ice"), 3, "ouse"),
    (("xes", "ches", "sses", "shes"), 2, ""),
    (("movies", "ombies"), 1, ""),
    ((*_each(_but("aeiouy"), "ies"), "quies"), 3, "y"),
    ((*_each("aeo", "lves"), *_each(_but("d"), "eaves"), "arves"), 3, "f"),
    (("erves",), 1, ""),
    (_each("nlw", "ives"), 3, "fe"),
    (_each("lr", "ves"), 3, "f"),
    ((*_each("aeo", "ves"), *_each("sth", "ives")), 1, ""),
    (_each(_but("f"), "ves"), 3, "fe"),
    (("bases", "theses", "opses", "yses"), 2, "is"),
    (("closes", *_each("hdronbp", "oses")), 1, ""),
    (("oses",), 2, "is"),
    (("ta", "ia"), 1, "um"),
    (("s",), 1, ""),
)


@cache
def singularize(word: str) -> str:
    """The singular of a lower-case noun; other words come back changed by the same endings."""
    if word.endswith("'"):
        return singularize(word[:-1]) + "'s"
    if word in _SAME or _IE.search(word):
        return word
    for plural, singular in _IRREGULAR.items():
        if word.endswith(plural):
            return word.removesuffix(plural) + singular
    for endings, cut, instead in _RULES:
        if word.endswith(endings):
            return word[: len(word) - cut] + instead
    return word
