"""Standard output through rich, for commands and recipes."""

from __future__ import annotations

from typing import Any

from rich.console import Console


class Output(Console):
    """Standard output. A reader that left is a BrokenPipeError as for `print`, where rich would exit with code 1."""

    def __init__(self, **options: Any):
        super().__init__(highlight=False, **options)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError
