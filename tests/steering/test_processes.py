"""Several processes on one extraction, and processes that are killed. Oracle: one process, undisturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import truthkit as tk
from tests.conftest import ROOT
from tests.models.folders import text_folder
from tests.steering.test_extract import distance, toy_pairs
from truthkit import cli
from truthkit.parallel import Shards

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """`extract` over a tiny model; what follows is the file to write."""
    text_folder(tmp_path / "model")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("\n".join(json.dumps(vars(pair)) for pair in toy_pairs(240)))
    settings = ["--model", str(tmp_path / "model"), "--token-budget", "40", "--held-out", "0.1"]
    return ["extract", str(pairs), *settings, "--out"]


def alone(command: list[str], out: Path) -> tk.SteeringVector:
    """The vector of one undisturbed process: this one."""
    assert cli.main([*command, str(out)]) == 0
    return tk.SteeringVector.load(out)


# -- several processes -------------------------------------------------------------------------------------------------

LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
    "accelerate": ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port=0"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "launcher"), [("mean", "torchrun"), ("logistic", "torchrun"), ("pca", "accelerate")]
)
def test_two_processes_share_the_work(method: str, launcher: str, command: list[str], tmp_path: Path) -> None:
    """The states are the same to the last bit; moments are summed in another order, in float64.

    States that were left behind by processes which were killed before their first record are not taken over.
    """
    command = [*command[:-1], "--method", method, "--out"]
    expected, out = alone(command, tmp_path / "alone.safetensors"), tmp_path / "v.safetensors"
    for shard in ("shard-0", "shard-1"):
        (left := tmp_path / "v.safetensors.partial" / shard).mkdir(parents=True)
        (left / "states.bin").write_bytes(torch.randn(100_000).numpy().tobytes())
    started = [sys.executable, *LAUNCHERS[launcher], "-m", "truthkit.cli", *command, str(out)]
    subprocess.run(started, check=True, env=ENVIRONMENT, cwd=ROOT)
    found = tk.SteeringVector.load(out)
    assert all(distance(found[layer], expected[layer].double()) < 1e-6 for layer in expected)
    assert found.scores == expected.scores
    assert not (tmp_path / "v.safetensors.partial").exists()


_PLACE = "from truthkit.parallel import Shards; shards = Shards(); print(shards.index, shards.count)"


@pytest.mark.slow
def test_processes_of_mpirun_know_their_place() -> None:
    """`accelerate launch --cpu --mpirun_hostfile` goes by the variables of Open MPI."""
    processes = []
    for rank in ("0", "1"):
        mpi = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": rank, "OMPI_COMM_WORLD_LOCAL_RANK": rank}
        place = {**ENVIRONMENT, **mpi, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29547", "ACCELERATE_USE_CPU": "True"}
        started = [sys.executable, "-c", _PLACE]
        processes.append(subprocess.Popen(started, env=place, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    answers = [process.communicate(timeout=120)[0].split()[-2:] for process in processes]
    assert answers == [["0", "2"], ["1", "2"]]


def test_a_launcher_that_starts_one_process_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """`accelerate launch --cpu --num_processes 2` without MPI runs the command once."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.warns(UserWarning, match="one process only"):
        assert Shards().count == 1


# -- killed processes --------------------------------------------------------------------------------------------------

_DYING = """
import os, pathlib, signal, sys
import safetensors.torch
from truthkit import cli
from truthkit.steering.extraction import progress

progress._EVERY = 0.02
moment, saved, write = sys.argv.pop(1), [], safetensors.torch.save_file

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def half_a_record(tensors, path, **options):
    write(tensors, path, **options)
    saved.append(path)
    if moment == "half a record" and len(saved) == 3:
        os.truncate(path, os.path.getsize(path) // 2)
        die()

def half_a_vector(path, content):
    with open(path, "wb") as file:
        file.write(content[: len(content) // 2])
    die()

safetensors.torch.save_file = half_a_record
if moment == "half a vector":
    pathlib.Path.write_bytes = half_a_vector
if moment == "before it is cleared away":
    import shutil
    shutil.rmtree = die
sys.exit(cli.main(sys.argv[1:]))
"""


def killed_at(moment: str, arguments: list[str]) -> subprocess.Popen[bytes]:
    """A real process that kills itself at one moment, or is to be killed."""
    return subprocess.Popen([sys.executable, "-c", _DYING, moment, *arguments], env=ENVIRONMENT, cwd=ROOT)


@pytest.mark.parametrize("moment", ["half a record", "half a vector", "before it is cleared away"])
def test_killed_while_it_writes(moment: str, command: list[str], tmp_path: Path) -> None:
    out = tmp_path / "v.safetensors"
    assert killed_at(moment, [*command, str(out)]).wait(timeout=120) == -signal.SIGKILL
    assert (tmp_path / "v.safetensors.partial" / "progress.safetensors").is_file()
    check_resumed(command, tmp_path)


@pytest.mark.parametrize(
    "method", ["logistic", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mean", "pca"))]
)
def test_killed_while_it_reads(method: str, command: list[str], tmp_path: Path) -> None:
    """SIGKILL from outside, at a batch of chance, some records after the first."""
    command = [*command[:-1], "--method", method, "--out"]
    process = killed_at("never", [*command, str(tmp_path / "v.safetensors")])
    record = tmp_path / "v.safetensors.partial" / "progress.safetensors"
    while not record.exists() and process.poll() is None:
        time.sleep(0.005)
    time.sleep(0.1)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    check_resumed(command, tmp_path)


def check_resumed(command: list[str], folder: Path) -> None:
    """The same command again gives what an undisturbed process gives, and leaves nothing else."""
    resumed, expected = alone(command, folder / "v.safetensors"), alone(command, folder / "alone.safetensors")
    assert all(torch.equal(resumed[layer], expected[layer]) for layer in expected)
    assert resumed.provenance == expected.provenance
    left = {path.name for path in folder.iterdir()}
    assert left == {"model", "pairs.jsonl", "v.safetensors", "alone.safetensors"}
