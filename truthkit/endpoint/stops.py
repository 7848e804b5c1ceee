"""Texts that end an answer: never shown, not even in part."""

from __future__ import annotations

from collections.abc import Sequence


class UntilStop:
    """Passes an answer's text on, but for what may turn out to begin a stop.

    Args:
        stops: texts, none empty.
    """

    def __init__(self, stops: Sequence[str]):
        self._stops = stops
        self._held = ""

    def __call__(self, piece: str) -> tuple[str, bool]:
        """What can be shown now that `piece` has come, and whether a stop was found: nothing comes after it."""
        text = self._held + piece
        found = [at for at in map(text.find, self._stops) if at >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        shown = len(text) - self._begun(text)
        self._held = text[shown:]
        return text[:shown], False

    def rest(self) -> str:
        """What was held back, once nothing more comes."""
        held, self._held = self._held, ""
        return held

    def _begun(self, text: str) -> int:
        """How many characters at the end of `text` a stop begins with, at most."""
        return max(
            (
                length
                for stop in self._stops
                for length in range(1, min(len(stop), len(text) + 1))
                if text.endswith(stop[:length])
            ),
            default=0,
        )
