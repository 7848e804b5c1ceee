"""From a caption to lemmas, in the two ways that CHAIR scripts have: `nltk` and `pattern`.

The `nltk` way is tokens, part-of-speech tags, WordNet lemmas. The result is nltk's own, at a fraction of the work,
because only a few words can become an object: a word is tagged only if its lemma depends on the tag and matters; the
tagger goes left to right and looks back two tags, so it starts after two words that have but one tag; sentences of
plain words and commas are split without the tokeniser's rules; and WordNet's word lists are read without its synsets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from truthkit.errors import ArgumentError, MissingExtraError, NotAvailableError
from truthkit.evaluation.tasks.chair.singular import singularize

LEMMATIZERS = ("nltk", "pattern")
Lemmatize = Callable[[str], list[str]]

_RESOURCES = "punkt_tab averaged_perceptron_tagger_eng wordnet"
_PLAIN = re.compile(r"[a-z\s-]+(?:,\s[a-z\s-]+)*\.?")
_SPLIT_IN_TWO = re.compile(r"\b(?:cannot|gimme|gonna|gotta|lemme|wanna)\b|--")
_TAG_TO_POS = {"J": "a", "V": "v", "N": "n", "R": "r"}

# WordNet's detachment rules, for nouns, verbs, adjectives and adverbs; wordnet.princeton.edu, morphy(7WN).
_FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
_DETACH: dict[str, tuple[tuple[str, str], ...]] = {
    "n": (
        ("s", ""),
        ("ses", "s"),
        ("ves", "f"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ),
    "v": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "r": (),
}


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
    with _nltk(nltk_data):
        from nltk.tokenize.punkt import PunktTokenizer

        sentences = PunktTokenizer("english")
        if name == "nltk":
            lemmas = _TaggedLemmas(frozenset(words))
            return lambda caption: lemmas(tokens(caption.lower(), sentences))
    return lambda caption: [singularize(token) for token in tokens(caption.lower(), sentences)]


def tokens(text: str, sentences: Any) -> list[str]:
    """The same tokens as `nltk.word_tokenize` for lower-case text; `sentences` is a Punkt tokeniser."""
    return [token for sentence in sentences.tokenize(text) for token in _sentence_tokens(sentence)]


@lru_cache(maxsize=1 << 16)
def _sentence_tokens(sentence: str) -> list[str]:
    if not _PLAIN.fullmatch(sentence) or _SPLIT_IN_TWO.search(sentence):
        return _word_tokenizer().tokenize(sentence)
    stop = sentence.endswith(".")
    found = sentence.removesuffix(".").replace(",", " , ").split()
    return [*found, "."] if stop else found


@lru_cache(maxsize=1)
def _word_tokenizer() -> Any:
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer()


class _TaggedLemmas:
    """WordNet lemmas by part of speech; what does not matter is not tagged."""

    def __init__(self, words: frozenset[str]) -> None:
        from nltk.tag.perceptron import PerceptronTagger

        self.words = words
        self.tagger = PerceptronTagger()
        self.normalize = cache(self.tagger.normalize)
        self.morphy = _Morphy()
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
            lemmas = {pos: self.morphy(word, pos) for pos in _FILES}
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


class _Morphy:
    """WordNet's morphy and the choice of nltk's lemmatiser: the shortest form that is in WordNet, else the word."""

    def __init__(self) -> None:
        from nltk.data import find

        folder = find("corpora/wordnet/")
        self.forms: dict[str, set[str]] = {}
        self.exceptions: dict[str, dict[str, list[str]]] = {}
        for pos, file in _FILES.items():
            lines = _lines(folder.join(f"index.{file}"))
            self.forms[pos] = {line.split(" ", 1)[0] for line in lines if not line.startswith(" ")}
            terms = (line.split() for line in _lines(folder.join(f"{file}.exc")))
            self.exceptions[pos] = {first: others for first, *others in terms}

    def __call__(self, word: str, pos: str) -> str:
        candidates = self.exceptions[pos].get(word)
        if candidates is None:
            rules = (rule for rule in _DETACH[pos] if word.endswith(rule[0]))
            candidates = [word[: len(word) - len(old)] + new for old, new in rules]
        return min((form for form in (word, *candidates) if form in self.forms[pos]), key=len, default=word)


def _lines(pointer: Any) -> list[str]:
    with pointer.open() as file:
        data = file.read()
    return [line for line in (data.decode() if isinstance(data, bytes) else data).split("\n") if line]


@contextmanager
def _nltk(folders: Sequence[Path]) -> Iterator[None]:
    """Nltk with more folders to find its data in, for the length of the block."""
    try:
        import nltk.data
    except ImportError:
        raise MissingExtraError("CHAIR needs nltk: pip install 'truthkit[eval]'.") from None
    kept = list(nltk.data.path)
    nltk.data.path.extend(str(folder) for folder in folders if folder.is_dir())
    try:
        yield
    except LookupError as error:
        named = re.search(r"Resource .*?'?(\w+)'?.*? not found", str(error))
        what = f"nltk's data ({named[1]})" if named else "nltk's data"
        raise NotAvailableError(
            f"{what} is not on this machine: run python -m nltk.downloader {_RESOURCES}, "
            "or set NLTK_DATA to the folder that has it."
        ) from None
    finally:
        nltk.data.path[:] = kept
