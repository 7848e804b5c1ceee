"""The registry of scorers is cheap to import and says what there is."""

from __future__ import annotations

import subprocess
import sys

import pytest

import truthkit as tk
from truthkit.evaluation import SCORERS, scorer


def test_importing_is_light() -> None:
    code = "import truthkit.evaluation, sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"numpy", "torch", "nltk"}.isdisjoint(found.stdout.split())


@pytest.mark.parametrize("task", SCORERS)
def test_every_scorer_is_there(task: str) -> None:
    assert callable(scorer(task).score)


def test_unknown_task() -> None:
    with pytest.raises(tk.ArgumentError, match="task is 'vqa'; expected one of pope, chair, mme"):
        scorer("vqa")
