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

_SECONDS = 150


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
    for process, text in zip(started, said, strict=True):
        assert process.returncode == 0, text[-4000:]
    return said


def check(name: str, case: Case, bench: Bench, found: Result) -> None:
    """`found` is what `case` gives in this process."""
    expected = case(bench)
    if isinstance(expected, str) or isinstance(found, str):
        assert found == expected
    elif expected.dtype.is_floating_point:
        assert torch.allclose(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    else:
        assert torch.equal(found, expected), (found.tolist(), expected.tolist())


def test_spread_models_give_the_same(folder: Path) -> None:
    """Tokens are equal and numbers too, to 1e-4 of the largest one; or it is refused. Once each, for it is dear."""

    def load(name: str) -> tuple[Any, Any]:
        return loaded(name, folder)

    for name in ("whole", "spread"):
        (folder / name).mkdir()
    in_processes(2, "-m", "tests.spread.worker", str(folder))
    found = [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]
    failures = []

    def compared(
        kind: str, some: dict[str, Case], bench: Bench, rank: int, refused: frozenset[str] = frozenset()
    ) -> None:
        for name in found[rank][kind]:
            result = found[rank][kind][name]
            try:
                if name in refused:
                    assert "refused: the weights" in str(result)
                    assert "FSDP2" in str(result)
                else:
                    check(name, some[name], bench, result)
            except Exception as error:
                error.add_note(f"case: {kind}, {name}, process {rank}")
                failures.append(error)

    bench = Bench(folder, folder / "whole", load("text")[0], load, load("other")[0])
    compared("tensor parallel", cases.TENSOR_PARALLEL | cases.COMMANDS, bench, 0)
    for rank in (0, 1):
        compared("several devices", cases.SEVERAL_DEVICES, bench, rank)
    for rank in (0, 1):
        bench.row = rank
        compared("fully sharded", cases.FULLY_SHARDED, bench, rank, cases.REFUSED)
    if failures:
        raise ExceptionGroup(f"{len(failures)} cases", failures)
