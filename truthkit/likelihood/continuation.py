"""A text after a prompt, as tokens: cut where the references cut."""

from __future__ import annotations

from typing import Any

from truthkit.errors import ArgumentError
from truthkit.text.tokens import text_ids

_SHOWN = 60


def continued(tokenizer: Any, prompt: str, text: str) -> tuple[list[int], int]:
    """Token ids of prompt and text, tokenised together, and where the text's begin: behind as many as the prompt has.

    That is where lm-evaluation-harness and the benchmarks' own scripts cut. Special tokens are as in `text_ids`.

    Raises:
        ArgumentError: nothing stands before the text, or the text has no token of its own, since it is empty or has
            merged into the prompt's last token: its score would be that of nothing, 0, the best there is.
    """
    row, start = text_ids(tokenizer, prompt + text), len(text_ids(tokenizer, prompt))
    if not start:
        raise ArgumentError(f"no token comes before {text[:_SHOWN]!r}; a score needs a prompt.")
    if len(row) <= start:
        raise ArgumentError(
            f"{text[:_SHOWN]!r} has no token of its own behind {prompt[-20:]!r}"
            + (": this tokenizer merges the two" if text else "")
            + ". Give another text, one that begins with a space for one, or use another model."
        )
    return row, start
