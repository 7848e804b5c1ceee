"""Several blocks on a model that are entered and left as one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Self

from truthkit.errors import AttachError


class Blocks:
    """Enters its parts in their order, and leaves them in the other.

    Args:
        parts: what is entered.
    """

    def __init__(self, parts: Sequence[AbstractContextManager[Any]]):
        self.parts = tuple(parts)
        self._stack: ExitStack | None = None

    def __enter__(self) -> Self:
        if self._stack is not None:
            name = type(self).__name__
            raise AttachError(f"this {name} is entered already; leave its block first, or make another one.")
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.__exit__(*exception)
