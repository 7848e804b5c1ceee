"""Models that two processes hold, or two devices. Oracle: the same of one process, which holds the model whole."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tests.spread import cases
from tests.spread.cases import Bench, Case, Result, loaded

_SECONDS = 420
"""More than the processes give themselves; a deadlock is no hang."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cases.make_folder(tmp_path)
    return tmp_path


def in_processes(count: int, *arguments: str) -> list[str]:
    """What `count` processes print, started as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    place |= os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        said = [process.communicate(timeout=_SECONDS)[0] for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()
    for process, text in zip(started, said, strict=True):
        assert process.returncode == 0, text[-4000:]
    return said


def check(case: Case, bench: Bench, found: Result) -> None:
    """`found` is what `case` gives in this process."""
    expected = case(bench)
    if isinstance(expected, str) or isinstance(found, str):
        assert found == expected
    elif expected.dtype.is_floating_point:
        assert torch.allclose(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    else:
        assert torch.equal(found, expected), (found.tolist(), expected.tolist())


class Comparison:
    """What the processes found, beside what this one finds."""

    def __init__(self, folder: Path, count: int):
        for name in ("whole", "spread"):
            (folder / name).mkdir()
        in_processes(count, "-m", "tests.spread.worker", str(folder))
        self.found = [torch.load(folder / f"{rank}.pt") for rank in range(count)]
        self.failures: list[Exception] = []

        def load(name: str) -> tuple[Any, Any]:
            return loaded(name, folder)

        self.bench = Bench(folder, folder / "whole", load("text")[0], load, load("other")[0])

    def compare(self, kind: str, some: dict[str, Case], rank: int, refused: frozenset[str] = frozenset()) -> None:
        """All that process `rank` found."""
        for name, result in self.found[rank][kind].items():
            try:
                if name in refused:
                    assert str(result).startswith("refused: ")
                    assert len(str(result).splitlines()) == 1
                else:
                    check(some[name], self.bench, result)
            except Exception as error:
                error.add_note(f"case: {kind}, {name}, process {rank}")
                self.failures.append(error)

    def settle(self) -> None:
        """Raise what failed."""
        if self.failures:
            raise ExceptionGroup(f"{len(self.failures)} cases", self.failures)


def test_spread_models_give_the_same(folder: Path) -> None:
    """Tokens are equal and numbers too, to 1e-4 of the largest one; or it is refused. One launch, for it is dear."""
    both = Comparison(folder, 2)
    both.compare("tensor parallel", cases.TENSOR_PARALLEL | cases.COMMANDS, 0)
    for rank in (0, 1):
        both.compare("several devices", cases.SEVERAL_DEVICES, rank)
    for rank in (0, 1):
        both.bench.row = rank
        both.compare("fully sharded", cases.FULLY_SHARDED, rank, cases.REFUSED)
    both.settle()


@pytest.mark.slow
def test_copies_share_the_work(folder: Path) -> None:
    """Four processes, two for a copy: records of both copies, and one vector."""
    four = Comparison(folder, 4)
    four.compare("tensor parallel", cases.TWO_COPIES, 0)
    four.settle()
    run = folder / "spread" / "run"
    assert sorted(path.name for path in run.glob("records*")) == ["records-1.jsonl", "records.jsonl"]
