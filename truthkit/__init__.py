"""Truthful decoding, steering and benchmarks for Hugging Face models.

Importing this package is cheap: names are looked up when first used, and only then are torch and transformers imported.
"""

from truthkit.lazy import attach

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = attach(__name__)
