"""What each new token adds to an answer's text."""

from __future__ import annotations

from typing import Any


class Pieces:
    """Splits an answer's text into what its tokens brought, while they come.

    Byte-level tokens may end within a character; it then belongs to the token that completes it. Special tokens bring
    nothing. Only the last few tokens are decoded again, so a long answer costs no more per token than a short one.

    Args:
        tokenizer: of the model.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._before, self._said = 0, 0

    def __call__(self, token: int) -> str:
        """The text that `token` adds, "" while a character is incomplete."""
        self._ids.append(token)
        said = self._decoded(self._ids[self._before : self._said])
        text = self._decoded(self._ids[self._before :])
        if text.endswith("\ufffd"):
            return ""
        self._before, self._said = self._said, len(self._ids)
        return text[len(said) :]

    def _decoded(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text
