"""Packages whose names are looked up when first used, so that importing them costs nothing.

The names are those that the package's stub imports: `__init__.pyi` is the one list, which type checkers, editors and
this module read.
"""

from __future__ import annotations

import ast
import pkgutil
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def attach(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package, from its stub.

    The stub has lines such as `from truthkit.models.loading import load as load`.
    """
    stub = pkgutil.get_data(package, "__init__.pyi")
    assert stub is not None, f"{package} has no stub"
    homes = {
        alias.asname or alias.name: (statement.module or "", alias.name)
        for statement in ast.parse(stub).body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    names = vars(sys.modules[package])

    def look_up(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, there = homes[name]
        value = names[name] = getattr(import_module(module), there)
        return value

    return look_up, lambda: sorted({*names, *homes}), sorted([*homes, *({"__version__"} & names.keys())])
