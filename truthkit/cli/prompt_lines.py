"""Prompts from the command line, a file or standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from truthkit.errors import ArgumentError, NotAvailableError
from truthkit.files.reading import read_texts


def read_prompts(given: Sequence[str], file: str | None) -> list[str]:
    """The prompts of the command line, of `file`, and of standard input where one of them is "-".

    A file has one per line, or is one that `read_texts` reads, with a field prompt, text, question or claim.

    Raises:
        ArgumentError, MissingExtraError: there is none, one is empty, or the file cannot be read.
    """
    prompts: list[str] = []
    for prompt in given:
        prompts += _lines(sys.stdin.read(), "standard input") if prompt == "-" else [prompt]
    if file is not None:
        if file == "-":
            prompts += _lines(sys.stdin.read(), "standard input")
        else:
            try:
                prompts += [text.strip() for text in read_texts(Path(file), "prompt", "text", "question", "claim")]
            except NotAvailableError as error:
                raise ArgumentError(f"the prompt file {file!r} {str(error).removeprefix(f'{file} ')}") from error
    if not prompts:
        raise ArgumentError('there is no prompt; pass one in quotes, a file with --file, or "-" for standard input.')
    if not all(prompt.strip() for prompt in prompts):
        raise ArgumentError("the prompt is empty; pass a question or the beginning of a text.")
    return prompts


def _lines(text: str, source: str) -> list[str]:
    if not (lines := [line.strip() for line in text.splitlines() if line.strip()]):
        raise ArgumentError(f"{source} holds no prompt; write one per line.")
    return lines
