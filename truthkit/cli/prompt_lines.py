"""Prompts from the command line, a file or standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.files.reading import read_texts

_MEANT = "a question or the beginning of a text"


def read_prompts(given: Sequence[str], file: str | None, *, noun: str = "prompt", meant: str = _MEANT) -> list[str]:
    """The prompts of the command line, of `file`, and of standard input where one of them is "-".

    A file has one per line, or is one that `read_texts` reads, with a field prompt, text, question or claim.

    Args:
        given: of the command line.
        file: the file's path; "-" is standard input.
        noun: what errors call a prompt.
        meant: what they say one should be.

    Raises:
        ArgumentError, MissingExtraError: there is none, one is empty, or the file cannot be read.
    """
    prompts: list[str] = []
    for prompt in given:
        prompts += _lines(sys.stdin.read(), noun) if prompt == "-" else [prompt]
    if file is not None:
        if file == "-":
            prompts += _lines(sys.stdin.read(), noun)
        else:
            try:
                prompts += [text.strip() for text in read_texts(Path(file), "prompt", "text", "question", "claim")]
            except NotAvailableError as error:
                raise ArgumentError(f"the {noun} file {file!r} {str(error).removeprefix(f'{file} ')}") from error
    if not prompts:
        raise ArgumentError(f'there is no {noun}; pass one in quotes, a file with --file, or "-" for standard input.')
    if not all(prompt.strip() for prompt in prompts):
        raise ArgumentError(f"the {noun} is empty; pass {meant}.")
    return prompts


def _lines(text: str, noun: str) -> list[str]:
    if not (lines := [line.strip() for line in text.splitlines() if line.strip()]):
        raise ArgumentError(f"standard input holds no {noun}; write one per line.")
    return lines
