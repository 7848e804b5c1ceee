"""Runs notebooks and writes their outputs back: `make notebooks`, or `python docs/tools/notebooks.py FILE.ipynb ...`.

Each runs in a kernel of its own, in an empty folder, without a hub; progress bars and cells' timings are not kept. The
sizes of a notebook stand in a cell tagged `parameters`, as papermill has it, so that the tests run it with small ones.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
ANSI = re.compile(r"\x1b\[[0-9;]*m")
QUIET = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "COLUMNS": "100"}


def execute(path: Path, *, parameters: Mapping[str, int] | None = None, timeout: float = 600) -> Any:
    """The notebook with fresh outputs.

    Args:
        path: the notebook.
        parameters: values that replace those of its `parameters` cell.
        timeout: seconds that one cell may take.

    Raises:
        ValueError: it has no such parameter.
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    if parameters:
        set_parameters(notebook, parameters)
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, **QUIET, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute(env=environment)
    return cleaned(notebook)


def set_parameters(notebook: Any, parameters: Mapping[str, int]) -> None:
    """Write values into the lines `name = value` of the cell tagged `parameters`.

    Raises:
        ValueError: it has no such line.
    """
    cell = next((cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())), None)
    for name, value in parameters.items():
        line = re.compile(rf"^{name} = .*?(?=\s+#|$)", re.MULTILINE)
        if cell is None or not line.search(cell.source):
            raise ValueError(f"the notebook has no parameter {name!r}: a line of the cell tagged 'parameters' sets it.")
        cell.source = line.sub(f"{name} = {value!r}", cell.source)


def cleaned(notebook: Any) -> Any:
    """The same without what differs from run to run, or says nothing to a reader."""
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02}"
        cell.metadata = nbformat.from_dict({"tags": cell.metadata.tags} if cell.metadata.get("tags") else {})
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
            for output in cell.outputs:
                if "metadata" in output:
                    output.metadata = nbformat.from_dict({})
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """What was printed, in one piece however it arrived, tables of rich as text, and nothing from standard error."""
    kept: list[Any] = []
    for output in outputs:
        if output.output_type == "display_data" and "text/html" in output.data:
            output = nbformat.v4.new_output("stream", name="stdout", text=ANSI.sub("", output.data["text/plain"]))
        if output.output_type == "stream" and output.name != "stdout":
            continue
        if output.output_type == "stream" and kept and kept[-1].output_type == "stream":
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def main() -> None:
    """Run those named, or all."""
    for path in map(Path, sys.argv[1:] or sorted(FOLDER.glob("*.ipynb"))):
        began = time.perf_counter()
        notebook = execute(path)
        path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        print(f"{path.name}: {time.perf_counter() - began:.0f} s, {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
