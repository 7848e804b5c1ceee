"""What a block brings to the compiled decode steps of its model (`truthkit.hf.steps`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from truthkit.hf.ownership import Block

Arguments = Mapping[str, Any]
"""Of a forward, by name."""


class Part(Protocol):
    """A block's share in the decode steps of its model.

    Attributes:
        name: of the block, in messages.
        owner: whom compiled code belongs to; the same at every entry.
        block: whose threads it acts in.
    """

    name: str
    owner: Any
    block: Block

    @property
    def has_read(self) -> bool:
        """Whether all of the prompt was read, in one forward or in chunks."""

    def obstacle(self, inputs: Arguments) -> str | None:
        """Why this step cannot be traced, as a clause; None if it can."""

    def step(self, inputs: Arguments, rows: int, wide: Callable[[], Arguments]) -> AbstractContextManager[None]:
        """The host's share, around the graph, in which the hooks on the model itself have nothing left to do.

        Args:
            inputs: the step's arguments as `generate` has them: one new token per row.
            rows: how many rows really run.
            wide: makes the arguments with which they do, if they are wanted.
        """


class Widening(Part, Protocol):
    """The part that puts more rows into the forward than `generate` knows of."""

    count: int
    """How many rows run for one."""

    def mask(self, inputs: Arguments) -> torch.Tensor | None:
        """Which of the first columns are real, shape (rows, columns), all behind being so; None for all."""

    def wide(self, inputs: Arguments) -> Arguments:
        """The arguments for all rows."""

    def given(self, inputs: Arguments, wide: Callable[[], Arguments]) -> Arguments:
        """Tensors that `widen` and `narrow` need beside."""

    def widen(self, inputs: Arguments, given: Arguments) -> Arguments:
        """Traced: the arguments for all rows, but their mask."""

    def narrow(self, outputs: Any, given: Arguments) -> tuple[Any, torch.Tensor]:
        """Traced: the outputs for the rows of `generate`, and what `look` is to see."""

    def look(self, found: torch.Tensor) -> None:
        """At what `narrow` found."""
