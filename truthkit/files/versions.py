"""Which versions of which packages made a result."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version


def versions(*packages: str) -> dict[str, str]:
    """Of truthkit, of Python and of those of `packages` that are installed."""
    found = {"truthkit": str(sys.modules["truthkit"].__version__), "python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
