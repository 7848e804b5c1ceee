"""Scores of tokens as shades, in a terminal and on a page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from truthkit.markup import Markup, element, together
from truthkit.printable import printable

_STYLE = """
body { font: 16px/1.7 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #1b1d21; }
article { border-top: 1px solid #e3e3de; padding: 1rem 0; }
.prompt { color: #666a73; white-space: pre-wrap; margin: 0; }
.answer { white-space: pre-wrap; margin: .3rem 0; }
.answer span { background: rgba(224, 123, 31, var(--heat)); border-radius: 3px; }
.score { font-variant-numeric: tabular-nums; color: #666a73; margin: 0; }
@media (prefers-color-scheme: dark) { body { background: #17181b; color: #ececea; } }
"""


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

    def _shade(self, score: float) -> float:
        span = self._high - self._low
        return min(max((score - self._low) / span, 0.0), 1.0) if span > 0 else 0.0


def page(lines: Sequence[dict[str, Any]], title: str) -> str:
    """A page of answers whose tokens are the darker the likelier they are false; a token's score shows on pointing."""
    heat = Heat(lines)
    articles = [
        element(
            "article",
            element("p", line["prompt"], class_="prompt", dir="auto"),
            element("p", *(_marked(piece) for piece in heat.pieces(line)), class_="answer", dir="auto"),
            element("p", f"score {line['score']:.4g}", class_="score"),
        )
        for line in lines
    ]
    head = element("head", element("meta", charset="utf-8"), element("title", title), element("style", Markup(_STYLE)))
    about = "Higher scores, and darker tokens, are more likely false, by this method. It does not know the truth."
    body = element("body", element("h1", title), element("p", about, class_="prompt"), together(*articles))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _marked(piece: Piece) -> str:
    if piece.score is None:
        return piece.text
    return element("span", piece.text, style=f"--heat:{0.75 * piece.shade:.2f}", title=f"{piece.score:.3f}")


def coloured(line: dict[str, Any], heat: Heat) -> Any:
    """One result as `rich` text."""
    from rich.text import Text

    text = Text(f"{printable(line['prompt'])}\n", style="dim")
    for piece in heat.pieces(line):
        red = f"on rgb({int(40 + 170 * piece.shade)},40,40)" if piece.shade > 0.05 else "not dim"
        text.append(printable(piece.text), style=f"not dim {red}" if piece.shade > 0.05 else red)
    return text.append(f"\nscore {line['score']:.4g}\n", style="dim")
