"""Tokens and lemmas as nltk makes them, with its data wherever that is; what CHAIR, AMBER and ARO read texts with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from truthkit.errors import MissingExtraError, NotAvailableError

_RESOURCES = "punkt_tab averaged_perceptron_tagger_eng wordnet"
_PLAIN = re.compile(r"[a-z\s-]+(?:,\s[a-z\s-]+)*\.?")
_SPLIT_IN_TWO = re.compile(r"\b(?:cannot|gimme|gonna|gotta|lemme|wanna)\b|--")

# WordNet's detachment rules, for nouns, verbs, adjectives and adverbs; wordnet.princeton.edu, morphy(7WN).
PARTS = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
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


def tokens(text: str, sentences: Any) -> list[str]:
    """The same tokens as `nltk.word_tokenize`; `sentences` is a Punkt tokeniser."""
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


class Morphy:
    """WordNet's morphy and the choice of nltk's lemmatiser: the shortest form that is in WordNet, else the word."""

    def __init__(self) -> None:
        from nltk.data import find

        folder = find("corpora/wordnet/")
        self.forms: dict[str, set[str]] = {}
        self.exceptions: dict[str, dict[str, list[str]]] = {}
        for pos, file in PARTS.items():
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
def nltk_at(folders: Sequence[Path], who: str) -> Iterator[None]:
    """Nltk with more folders to find its data in, for the length of the block; `who` needs it.

    Raises:
        MissingExtraError, NotAvailableError: nltk, or its data, is not on this machine.
    """
    try:
        import nltk.data
    except ImportError:
        raise MissingExtraError(f"{who} needs nltk: pip install 'truthkit[eval]'.") from None
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
