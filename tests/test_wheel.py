"""The wheel that `pip install .` makes: complete, and at work from where it is unpacked."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--quiet", "--wheel-dir", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode and "hatchling" in result.stderr:
        pytest.skip("the build backend, hatchling, is not here and no package index can be reached")
    assert result.returncode == 0, result.stderr
    (found,) = folder.glob("truthkit-*.whl")
    return found


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "truthkit"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = set(zipfile.ZipFile(wheel).namelist())
    packed = {name for name in names if not name.startswith("truthkit-")}
    assert packed == set(listed.stdout.splitlines())
    assert {"truthkit/py.typed", "truthkit/models/scene_vlm/model.safetensors"} <= packed
    assert {"truthkit/models/smollm2_amateur/adapter_model.safetensors"} <= packed
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_it_works_where_it_is_unpacked(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-W", "ignore", *arguments]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert run("-c", "import truthkit; print(truthkit.__file__)").startswith(str(tmp_path / "site"))
    assert "usage: truthkit" in run("-m", "truthkit.cli", "--help")
    shown = run("-c", "import truthkit as tk; print(tk.load('scene-vlm')[0].num_parameters())")
    assert int(shown) > 2_000_000
