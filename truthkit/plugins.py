"""Other packages' parts of truthkit, found by their entry points; a broken one is named once and left out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_named: set[tuple[str, str]] = set()


def entry_points(group: str) -> Iterator[EntryPoint]:
    """The entry points of `group`, such as "truthkit.decoders", in the order of their names."""
    from importlib import metadata  # slow to import, and not always needed

    yield from sorted(metadata.entry_points(group=group), key=lambda point: (point.name, point.value))


def left_out(entry_point: EntryPoint, error: Exception) -> None:
    """Warn, once in a process, that a plug-in is not there, and why."""
    if (key := (entry_point.group, entry_point.name)) in _named:
        return
    _named.add(key)
    package = entry_point.dist.name if entry_point.dist else entry_point.module
    said = " ".join(str(error).split()) or type(error).__name__
    warnings.warn(
        f"plug-in {entry_point.name!r} (package {package}) left out: {said.rstrip('.')}.", UserWarning, stacklevel=2
    )
