"""`import truthkit` is cheap, and every public name leads somewhere."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import truthkit as tk
from tests.conftest import ROOT

HEAVY = ("torch", "transformers", "peft", "numpy", "accelerate", "huggingface_hub")


def imported_after(statement: str) -> set[str]:
    """Names in `sys.modules` of a fresh interpreter after `statement`."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import truthkit; dir(truthkit); truthkit.__version__; truthkit.ArgumentError",
        "import truthkit.cli; truthkit.cli.build_parser().format_help()",
        "import truthkit.models; truthkit.models.load",
    ],
)
def test_importing_is_light(statement: str) -> None:
    assert imported_after(statement).isdisjoint(HEAVY)


def test_the_check_above_can_fail() -> None:
    assert "numpy" in imported_after("import numpy")


def test_public_names_resolve() -> None:
    assert [name for name in tk.__all__ if getattr(tk, name, None) is None or name not in dir(tk)] == []


def test_star_import_gives_exactly_the_public_names() -> None:
    namespace: dict[str, object] = {}
    exec("from truthkit import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(tk.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'truthkit' has no attribute 'nonsense'"):
        _ = tk.nonsense  # type: ignore[attr-defined]


def test_version_agrees_with_the_metadata() -> None:
    from importlib.metadata import version

    assert tk.__version__ == version("truthkit")


def test_the_citation_is_of_this_version_and_names_the_papers() -> None:
    """Of every paper in the README's table of decoders."""
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {tk.__version__}\n" in citation
    papers = set(re.findall(r"arxiv\.org/abs/(\d+\.\d+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert papers
    assert {paper for paper in papers if f'"arXiv:{paper}"' not in citation} == set()


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (tk.ArgumentError, ValueError),
        (tk.ModelError, ValueError),
        (tk.AttachError, RuntimeError),
        (tk.NotAvailableError, OSError),
        (tk.MissingExtraError, ImportError),
    ],
)
def test_errors_are_also_the_builtin_that_callers_catch(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, tk.TruthkitError)
    assert issubclass(error, builtin)
