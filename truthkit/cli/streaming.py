"""Answers as they are written, on a terminal."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from truthkit.generation.pieces import Pieces
from truthkit.printable import printable
from truthkit.text.tokens import text_tokenizer


class Streaming:
    """Shows answers while they are written, the end of them where there is no room for all, and clears them away.

    Args:
        console: a terminal.
        processor: a tokenizer or processor.
        title: what is answered.
    """

    def __init__(self, console: Console, processor: Any, title: str):
        self._console, self._tokenizer = console, text_tokenizer(processor, "an answer")
        self._written = Text(title, style="dim")
        self._live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.__exit__(kind, error, at)

    def begin(self, label: str, most: int, *, final: bool) -> Callable[[int], None]:
        """Begin an answer; what is returned is called with each of its tokens.

        Args:
            label: of the answer.
            most: how many tokens it has at most.
            final: whether tokens stay once they are there. If not, as with beams, they are only counted.
        """
        before, pieces = self._written, Pieces(self._tokenizer)
        head = Text.assemble(before, "\n", (label, "bold"), "\n")
        text, count = "", 0

        def advance(token: int) -> None:
            nonlocal text, count
            text, count = text + pieces(token), count + 1
            self._show(head + Text(printable(text)) if final else head + Text(f"{count} of {most} tokens", style="dim"))

        self._show(head)
        return advance

    def _show(self, written: Text) -> None:
        self._written = written
        lines = written.wrap(self._console, self._console.width)
        self._live.update(Text("\n").join(lines[-max(self._console.height - 1, 1) :]), refresh=True)
