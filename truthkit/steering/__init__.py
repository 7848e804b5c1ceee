"""Steering vectors: extracted from contrast pairs, kept with their provenance, applied in every mode of `generate`."""

from truthkit.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
