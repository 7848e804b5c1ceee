"""Scores of tokens as shades, in a terminal and on a page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from truthkit import token_page
from truthkit.markup import element, together
from truthkit.printable import printable
from truthkit.token_page import Legend

_WHOLE = "This method judges answers as a whole; tokens have no scores."


class Piece(NamedTuple):
    """A stretch of an answer: its text, the score of its token if it has one, and that as a shade from 0 to 1."""

    text: str
    score: float | None
    shade: float


class Heat:
    """Shades between the 5th and the 95th percentile of all token scores.

    Args:
        lines: results, each with "answer" and "tokens", as `Detection.as_dict` has them.
    """

    def __init__(self, lines: Sequence[dict[str, Any]]):
        scores = [score for line in lines for _, _, score in line["tokens"]]
        self.known = bool(scores)
        self._low, self._high = (float(np.percentile(scores, at)) if scores else 0.0 for at in (5, 95))

    def pieces(self, line: dict[str, Any]) -> Iterator[Piece]:
        """An answer in pieces, all of its characters in order."""
        answer, at = line["answer"], 0
        for start, stop, score in line["tokens"]:
            if start > at:
                yield Piece(answer[at:start], None, 0.0)
            if stop > max(start, at):
                yield Piece(answer[max(start, at) : stop], score, self._shade(score))
            at = max(at, stop)
        if at < len(answer):
            yield Piece(answer[at:], None, 0.0)

    def scale(self, unit: str = "") -> tuple[str, str, str]:
        """The scores of no shade, of half and of the full one, the last with its unit."""
        low, middle, high = (f"{value:.3g}" for value in (self._low, (self._low + self._high) / 2, self._high))
        return low, middle, f"{high} {unit}".rstrip()

    def note(self, unit: str = "") -> str:
        """What the shades are, in words."""
        of = f" in {unit}" if unit else ""
        return (
            f"Scores of tokens{of}, between the 5th and the 95th percentile of all. Higher scores, and stronger "
            "colours, are more likely false, by this method: it does not know the truth."
        )

    def _shade(self, score: float) -> float:
        span = self._high - self._low
        return min(max((score - self._low) / span, 0.0), 1.0) if span > 0 else 0.0


def page(lines: Sequence[dict[str, Any]], title: str, facts: Mapping[str, str] | None = None, unit: str = "") -> str:
    """A page of answers whose tokens are the darker the likelier they are false; a token's score shows on pointing.

    Args:
        lines: results, as of `Heat`.
        title: of the page.
        facts: what was done, by name.
        unit: what scores are of.
    """
    heat = Heat(lines)
    articles = [
        together(
            element("p", line["prompt"], class_="quiet", dir="auto"),
            element("p", *(_marked(piece, unit) for piece in heat.pieces(line)), class_="text", dir="auto"),
            element("p", f"score {line['score']:.4g} {unit}".rstrip(), class_="score"),
        )
        for line in lines
    ]
    own = " A token's own score shows when one points at it."
    legend = Legend(heat.scale(unit), (0.0, -1.0), heat.note(unit) + own) if heat.known else Legend(note=_WHOLE)
    return token_page.page(title, facts or {}, legend, articles)


def _marked(piece: Piece, unit: str) -> str:
    if piece.score is None:
        return piece.text
    return token_page.token(piece.text, -piece.shade, f"{piece.score:.3f} {unit}".rstrip())


def coloured(line: dict[str, Any], heat: Heat, unit: str = "") -> Any:
    """One result as `rich` text."""
    from rich.text import Text

    text = Text(f"{printable(line['prompt'])}\n", style="dim")
    for piece in heat.pieces(line):
        red = f" white {_background(piece.shade)}" if piece.shade > 0.05 else ""
        text.append(printable(piece.text), style=f"not dim{red}")
    return text.append(f"\nscore {line['score']:.4g} {unit}".rstrip() + "\n", style="dim")


def legend(heat: Heat, unit: str = "") -> Any:
    """What the shades of `coloured` are, as `rich` text."""
    from rich.text import Text

    if not heat.known:
        return Text(f"{_WHOLE}\n", style="dim")
    text = Text()
    for step, label in zip((0.1, 0.5, 1.0), heat.scale(unit), strict=True):
        text.append(f" {label} ", style=f"white {_background(step)}")
    return text.append(f"  {heat.note(unit)}\n", style="dim")


def _background(shade: float) -> str:
    return f"on rgb({int(40 + 170 * shade)},40,40)"
