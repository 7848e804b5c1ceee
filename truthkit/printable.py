"""Model output as text that is only read: it moves no cursor, reorders nothing, and is allowed in any document."""

from __future__ import annotations

import unicodedata

_BIDIRECTIONAL = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}  # can make text read in another order than it is


def printable(text: str) -> str:
    """`text` without the power to move the cursor, colour, beep or reorder: such characters become visible escapes."""
    return "".join(
        character if character in "\n\t" or not _controls(character) else ascii(character)[1:-1]
        for character in text.replace("\r\n", "\n")
    )


def _controls(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") or ord(character) in _BIDIRECTIONAL
