"""The notebooks are as a reader should find them, and run."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("nbformat", "nbclient", "ipykernel"))), reason="no notebooks here"
)

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_BYTES = 200_000
SMALL = {
    "decoding": {"new_tokens": 2, "long_text": 4},
    "steering": {"new_tokens": 2},
    "reflex": {"to_train": 6, "to_hold": 1, "to_test": 1, "steps": 2, "token_budget": 128, "new_tokens": 2},
    "pope_chair": {"scene_count": 8},
    "report": {"scene_count": 8},
}
"""Sizes for a look whether they run at all; `make test-slow` also takes the notebooks' own."""
IN_SHORT = "report"
"""The one that `make test` runs."""
MACHINE = re.compile(r"/(?:work|tmp|home|root|Users|opt|var)/|site-packages|\x1b\[|it/s\]")


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """What `make notebooks` runs."""
    spec = importlib.util.spec_from_file_location("docs_notebooks", ROOT / "docs" / "tools" / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(path: Path) -> Any:
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} == {"decoding", "steering", "reflex", "pope_chair", "report"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_fit_to_read(path: Path) -> None:
    """It begins with a title, was run from top to bottom without an error, and tells nothing of who ran it."""
    notebook = read(path)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    assert path.stat().st_size < MOST_BYTES
    assert not MACHINE.search(path.read_text(encoding="utf-8"))
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs
    assert {output.output_type for output in outputs} <= {"stream", "execute_result", "display_data"}
    assert not any(output.get("name") == "stderr" for output in outputs)


def test_cleaning(tool: ModuleType) -> None:
    """Standard error goes, pieces of standard output are joined, rich's tables become text."""
    import nbformat

    new = nbformat.v4.new_output
    cell = nbformat.v4.new_code_cell("1")
    cell.outputs = [
        new("stream", name="stdout", text="a"),
        new("stream", name="stderr", text="/tmp/warning"),
        new("stream", name="stdout", text="b"),
        new("display_data", data={"text/html": "<pre>c</pre>", "text/plain": "\x1b[1mc\x1b[0m"}),
        new("display_data", data={"image/png": "x", "text/plain": "<Figure>"}),
    ]
    (cleaned,) = tool.cleaned(nbformat.v4.new_notebook(cells=[cell])).cells
    first, second = cleaned.outputs
    assert first.text == "abc"
    assert second.data["image/png"] == "x"


def kinds(notebook: Any) -> list[list[str]]:
    return [[output.output_type for output in cell.outputs] for cell in code_cells(notebook)]


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if path.stem == IN_SHORT else pytest.mark.slow) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_a_notebook_runs_on_a_small_budget(path: Path, tool: ModuleType) -> None:
    """Every cell that had an output has one of the same kind."""
    assert kinds(tool.execute(path, parameters=SMALL[path.stem])) == kinds(read(path))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tool: ModuleType) -> None:
    """The same with the sizes that it has; figures differ between machines."""
    assert kinds(tool.execute(path)) == kinds(read(path))


def test_parameters(tool: ModuleType) -> None:
    """Lines of the tagged cell are set, their comments stay; a name that is not there is an error."""
    import nbformat

    cell = nbformat.v4.new_code_cell("a = 1  # of all\nb = 2", metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("a = 0"), cell])
    tool.set_parameters(notebook, {"a": 3, "b": 4})
    assert [cell.source for cell in notebook.cells] == ["a = 0", "a = 3  # of all\nb = 4"]
    assert tool.cleaned(notebook).cells[1].metadata == {"tags": ["parameters"]}
    with pytest.raises(ValueError, match="no parameter 'c'"):
        tool.set_parameters(notebook, {"c": 1})
