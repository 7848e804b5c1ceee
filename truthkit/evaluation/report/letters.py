"""How wide text in a drawing may get, whatever font a reader has: by DejaVu Sans, among the widest sans-serif ones."""

from __future__ import annotations

import unicodedata

_ADVANCES = {
    278: "'ijl",
    318: "IJ ,.·",
    361: "/:;\\|f-",
    401: "()[]t!",
    500: 'r"*_`–',
    531: "sz?",
    592: "cLFkvxy",
    615: "PTYoae",
    637: "EhnuSbdgpq$0123456789{}",
    698: "KAVXZBRC",
    788: "UNHDG&OQ",
    838: "w#+<=>^~−",
    1000: "Mm%W@…",
}
"""Thousandths of the font's size, rounded up, by letter."""

_WIDTHS = {letter: width / 1000 for width, letters in _ADVANCES.items() for letter in letters}
_OTHER = 0.84
_WIDE = 1.0


def text_width(text: str, size: float) -> float:
    """How wide the text is at this font size, in its unit, or a little less."""
    return size * sum(_advance(letter) for letter in unicodedata.normalize("NFD", text))


def fitted(text: str, room: float, size: float) -> str:
    """The text, or as much of its beginning as there is room for, with … behind."""
    if text_width(text, size) <= room:
        return text
    end = next(end for end in range(len(text) - 1, -1, -1) if text_width(f"{text[:end]}…", size) <= room or not end)
    return f"{text[:end].rstrip()}…"


def _advance(letter: str) -> float:
    if unicodedata.combining(letter):
        return 0.0
    return _WIDTHS.get(letter, _WIDE if unicodedata.east_asian_width(letter) in "WF" else _OTHER)
