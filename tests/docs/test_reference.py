"""The reference has every public name, and what it shows says what it is."""

from __future__ import annotations

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import truthkit as tk
from tests.conftest import ROOT

REFERENCE = ROOT / "docs" / "reference"
sys.path.insert(0, str(ROOT / "docs" / "tools"))  # as mkdocs does for its hooks
decoders, benchmark_pages = import_module("decoders"), import_module("benchmark_pages")


def written(page: Path) -> str:
    """A page as mkdocs gets it."""
    return benchmark_pages.with_benchmarks(decoders.with_references(page.read_text(encoding="utf-8")))


SHOWN = [
    name for page in sorted(REFERENCE.glob("*.md")) for name in re.findall(r"^::: (\S+)$", written(page), re.MULTILINE)
]
PACKAGES = (
    "truthkit",
    "truthkit.models",
    "truthkit.steering",
    "truthkit.evaluation",
    "truthkit.evaluation.report",
    "truthkit.evaluation.tasks",
    "truthkit.scenes",
)
"""Those with an `__all__`."""


def found(name: str) -> Any:
    """What a dotted name stands for; where a module and a function share a name, the module."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        home, _, last = name.rpartition(".")
        return getattr(import_module(home), last)


def members(module: ModuleType) -> dict[str, Any]:
    """A module's own public classes and functions."""
    return {
        f"{module.__name__}.{name}": value
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__ and _documentable(value)
    }


def _documentable(value: Any) -> bool:
    return inspect.isclass(value) or inspect.isfunction(value)


def is_shown(name: str) -> bool:
    """By itself, with its package, or with the module that it is from."""
    package, _, last = name.rpartition(".")
    value = getattr(import_module(package), last)
    home = getattr(value, "__module__", package)
    places = {name, package, home, f"{home}.{last}", f"truthkit.{last}" if hasattr(tk, last) else name}
    return not places.isdisjoint(SHOWN)


def test_public_names_are_in_the_reference() -> None:
    public = [f"{package}.{name}" for package in PACKAGES for name in import_module(package).__all__]
    assert [name for name in public if name != "truthkit.__version__" and not is_shown(name)] == []


def test_what_is_shown_is_documented() -> None:
    objects: dict[str, Any] = {}
    for name in SHOWN:
        value = found(name)
        objects |= {name: value} | (members(value) if isinstance(value, ModuleType) else {})
    for owner, one in list(objects.items()):
        if inspect.isclass(one):
            own = {key: getattr(one, key) for key in vars(one) if not key.startswith("_")}
            objects |= {f"{owner}.{key}": method for key, method in own.items() if inspect.isfunction(method)}
    assert [key for key, one in objects.items() if not inspect.getdoc(one)] == []


def test_nothing_is_shown_twice() -> None:
    assert sorted(set(SHOWN)) == sorted(SHOWN)


def test_errors_have_a_page() -> None:
    page = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    errors = [name for name in tk.__all__ if name.endswith("Error")]
    assert [error for error in errors if f"::: truthkit.{error}" not in page] == []


def test_what_stays_is_there() -> None:
    page = (REFERENCE / "stability.md").read_text(encoding="utf-8")
    stable = re.findall(r"^\| `(truthkit\.[\w.]+)` \| (.+?) \|", page, re.MULTILINE)
    promised = [(module, name) for module, names in stable for name in re.findall(r"`(\w+)`", names)]
    assert len(stable) > 15
    assert [f"{module}.{name}" for module, name in promised if not hasattr(import_module(module), name)] == []
