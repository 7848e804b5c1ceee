"""Models ready to use: from the hub, a folder, a GGUF file, or bundled with the toolkit."""

from truthkit.models.loading import load

__all__ = ["load"]
