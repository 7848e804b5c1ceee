"""What two copies of one text have in common."""

from __future__ import annotations

import re
import unicodedata


def fingerprint(text: str) -> str:
    """`text` without case, accents, punctuation and spacing: what two copies of one claim have in common. Ours."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return re.sub(r"[\W_]+", "", "".join(char for char in plain if not unicodedata.combining(char)))
