"""Scenes are light: other parts of the toolkit draw them without paying for torch."""

from __future__ import annotations

import subprocess
import sys


def test_scenes_need_no_torch() -> None:
    code = "import random, sys, truthkit.scenes as s; s.render(s.held_out(1)[0]); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "transformers", "numpy"}.isdisjoint(result.stdout.split())
