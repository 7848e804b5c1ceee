"""The decoders that have been imported, by name; those that have not are known to `truthkit.decoding.discovery`."""

from __future__ import annotations

DECODERS: dict[str, type] = {}
"""Every class that states a `name`."""


def register(cls: type) -> type:
    """Make `cls` known by its `name`."""
    DECODERS[cls.name] = cls  # type: ignore[attr-defined]
    return cls
