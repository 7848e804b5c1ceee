"""The reference has every public name, and what it shows says what it is."""

from __future__ import annotations

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

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


PUBLIC = [f"{package}.{name}" for package in PACKAGES for name in import_module(package).__all__]


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "truthkit.__version__"])
def test_a_public_name_is_in_the_reference(name: str) -> None:
    """By itself, with its package, or with the module that it is from."""
    package, _, last = name.rpartition(".")
    value = getattr(import_module(package), last)
    home = getattr(value, "__module__", package)
    shown = {name, package, home, f"{home}.{last}", f"truthkit.{last}" if hasattr(tk, last) else name}
    assert not shown.isdisjoint(SHOWN), f"docs/reference has no `::: {name}`"


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown_is_documented(name: str) -> None:
    value = found(name)
    objects = {name: value} | (members(value) if isinstance(value, ModuleType) else {})
    for owner, one in list(objects.items()):
        if inspect.isclass(one):
            own = {key: getattr(one, key) for key in vars(one) if not key.startswith("_")}
            objects |= {f"{owner}.{key}": method for key, method in own.items() if inspect.isfunction(method)}
    missing = [key for key, one in objects.items() if not inspect.getdoc(one)]
    assert not missing


def test_nothing_is_shown_twice() -> None:
    assert sorted(set(SHOWN)) == sorted(SHOWN)


@pytest.mark.parametrize("error", [name for name in tk.__all__ if name.endswith("Error")])
def test_errors_have_a_page(error: str) -> None:
    assert f"::: truthkit.{error}" in (REFERENCE / "errors.md").read_text(encoding="utf-8")


STABLE = re.findall(
    r"^\| `(truthkit\.[\w.]+)` \| (.+?) \|", (REFERENCE / "stability.md").read_text(encoding="utf-8"), re.MULTILINE
)


@pytest.mark.parametrize(("module", "names"), STABLE)
def test_what_stays_is_there(module: str, names: str) -> None:
    listed = re.findall(r"`(\w+)`", names)
    assert len(STABLE) > 15
    assert listed
    for name in listed:
        assert hasattr(import_module(module), name), f"{module}.{name}"
