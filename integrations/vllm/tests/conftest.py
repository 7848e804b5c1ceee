from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Read by vLLM when it is imported: one process, a small cache, no talk with a hub.
os.environ.update(
    HF_HUB_OFFLINE="1",
    OMP_NUM_THREADS="1",
    VLLM_CPU_KVCACHE_SPACE="1",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_LOGGING_LEVEL="WARNING",
    VLLM_NO_USAGE_STATS="1",
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where truthkit put its tokens, a vector and a model with the vector baked in: see reference.py."""
    if made := os.environ.get("TRUTHKIT_REFERENCE"):
        return Path(made)
    if not (python := os.environ.get("TRUTHKIT_PYTHON")):
        pytest.skip("TRUTHKIT_PYTHON does not name a Python that has truthkit")
    target = tmp_path_factory.mktemp("reference")
    script = Path(__file__).with_name("reference.py")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])
    subprocess.run([python, str(script), str(target)], check=True, env=environment, stdout=sys.stderr)
    return target


@pytest.fixture(scope="session")
def reference(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "reference.json").read_text())
