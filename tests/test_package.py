"""`import truthkit` is cheap, and every public name leads somewhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

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
        "import truthkit.decoding, truthkit.steering, truthkit.decoding.spec, truthkit.steering.spec",
        "from truthkit.decoding.discovery import decoders; decoders()",
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


@pytest.mark.parametrize("package", ["truthkit", "truthkit.steering"])
def test_a_name_is_where_the_stub_says(package: str) -> None:
    """The stub is read by Python, as type checkers do, and by the package: they agree on every name and its home."""
    module = import_module(package)
    assert module.__file__ is not None
    stub = ast.parse(Path(module.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    homes = {
        alias.name: statement.module
        for statement in stub.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
        if alias.asname == alias.name  # what is imported otherwise is not exported by a stub
    }
    assert sorted(homes) == sorted(set(module.__all__) - {"__version__"})
    for name, home in homes.items():
        assert getattr(module, name) is getattr(import_module(str(home)), name)
    assert (Path(tk.__file__).parent / "py.typed").is_file()


def test_type_checkers_know_the_names(tmp_path: Path) -> None:
    """The stub and the errors alone: the rest, torch's source too, would take minutes."""
    pytest.importorskip("mypy")
    (tmp_path / "use.py").write_text(
        "import truthkit as tk\nfrom truthkit.errors import ModelError\n"
        "error: type[ModelError] = tk.ModelError\nversion: str = tk.__version__\ntk.nonsense\n"
    )
    known = [str(Path(tk.__file__).parent / name) for name in ("__init__.pyi", "errors.py")]
    command = [sys.executable, "-m", "mypy", "--follow-imports=skip", "--cache-dir=cache", "use.py", *known]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert '5: error: Module has no attribute "nonsense"' in result.stdout
    assert "Found 1 error in 1 file" in result.stdout, result.stdout


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
