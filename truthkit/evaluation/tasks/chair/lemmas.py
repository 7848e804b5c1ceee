"""From a caption to lemmas, in the two ways that CHAIR scripts have: `nltk` and `pattern`.

The `nltk` way is tokens, part-of-speech tags, WordNet lemmas. The result is nltk's own, at a fraction of the work,
because only a few words can become an object: a word is tagged only if its lemma depends on the tag and matters; the
tagger goes left to right and looks back two tags, so it starts after two words that have but one tag; sentences of
plain words and commas are split without the tokeniser's rules; and WordNet's word lists are read without its synsets.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache
from pathlib import Path

from truthkit.errors import ArgumentError
from truthkit.evaluation.tasks.chair.singular import singularize
from truthkit.evaluation.tasks.words import PARTS, Morphy, nltk_at, tokens

LEMMATIZERS = ("nltk", "pattern")
Lemmatize = Callable[[str], list[str]]

_TAG_TO_POS = {"J": "a", "V": "v", "N": "n", "R": "r"}


def lemmatizer(name: str, words: Collection[str], *, nltk_data: Sequence[Path] = ()) -> Lemmatize:
    """A function from a caption to its lemmas.

    Args:
        name: `nltk` or `pattern`.
        words: the lemmas that matter. Others may come back in any form that is not one of these.
        nltk_data: folders to look for nltk's data in, after its own.

    Raises:
        ArgumentError: no such lemmatiser.
        MissingExtraError, NotAvailableError: nltk, or its data, is not on this machine.
    """
    if name not in LEMMATIZERS:
        raise ArgumentError(f"lemmatizer is {name!r}; expected one of {', '.join(LEMMATIZERS)}.")
    with nltk_at(nltk_data, "CHAIR"):
        from nltk.tokenize.punkt import PunktTokenizer

        sentences = PunktTokenizer("english")
        if name == "nltk":
            lemmas = _TaggedLemmas(frozenset(words))
            return lambda caption: lemmas(tokens(caption.lower(), sentences))
    return lambda caption: [singularize(token) for token in tokens(caption.lower(), sentences)]


class _TaggedLemmas:
    """WordNet lemmas by part of speech; what does not matter is not tagged."""

    def __init__(self, words: frozenset[str]) -> None:
        from nltk.tag.perceptron import PerceptronTagger

        self.words = words
        self.tagger = PerceptronTagger()
        self.normalize = cache(self.tagger.normalize)
        self.morphy = Morphy()
        self.known: dict[str, str | dict[str, str]] = {}

    def __call__(self, tokens: list[str]) -> list[str]:
        found = [self._lemmas(token) for token in tokens]
        result: list[str] = []
        tags: dict[int, str] = {}
        context: list[str] = []
        for number, lemmas in enumerate(found):
            if isinstance(lemmas, dict):
                context = context or self._context(tokens)
                lemmas = lemmas[_TAG_TO_POS.get(self._tag(number, tokens, context, tags)[0], "n")]
            result.append(lemmas)
        return result

    def _lemmas(self, word: str) -> str | dict[str, str]:
        """The lemma, or one for each part of speech where it makes a difference."""
        if word not in self.known:
            lemmas = {pos: self.morphy(word, pos) for pos in PARTS}
            differ = len({lemma if lemma in self.words else None for lemma in lemmas.values()}) > 1
            self.known[word] = lemmas if differ else lemmas["n"]
        return self.known[word]

    def _context(self, tokens: list[str]) -> list[str]:
        tagger = self.tagger
        return [*tagger.START, *map(self.normalize, tokens), *tagger.END]

    def _tag(self, number: int, tokens: list[str], context: list[str], tags: dict[int, str]) -> str:
        """The tag that `nltk.pos_tag` gives; `tags` holds those of this caption that are known already."""
        start = number
        while start not in tags and start >= 0 and not (start < number and self._fixed(start, tokens)):
            start -= 1
        for i in range(max(start, 0), number + 1):
            if i not in tags:
                tags[i] = self.tagger.tagdict.get(tokens[i]) or self._predict(i, tokens, context, tags)
        return tags[number]

    def _fixed(self, number: int, tokens: list[str]) -> bool:
        """Whether this word and the one before have one tag each, so that nothing before them counts."""
        tagdict = self.tagger.tagdict
        return tokens[number] in tagdict and (number == 0 or tokens[number - 1] in tagdict)

    def _predict(self, i: int, tokens: list[str], context: list[str], tags: dict[int, str]) -> str:
        tagger = self.tagger
        before = [tags[j] if j in tags else tagger.tagdict[tokens[j]] for j in (i - 2, i - 1) if j >= 0]
        second, first = [*reversed(tagger.START), *before][-2:]
        features = tagger._get_features(i, tokens[i], context, first, second)
        return str(tagger.model.predict(features)[0])
