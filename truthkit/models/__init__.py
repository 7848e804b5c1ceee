"""Models ready to use: from the hub, a folder, a GGUF file, or bundled with the toolkit."""

from typing import Any

from truthkit.models.loading import load

__all__ = ["identity", "load"]


def __getattr__(name: str) -> Any:
    if name == "identity":  # it needs torch, which listing what is here does not
        from truthkit.models.identities import identity

        return identity
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
