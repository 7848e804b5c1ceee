"""Several processes on one extraction, and processes that are killed. Oracle: one process, undisturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and pairs."""
    folder = tmp_path_factory.mktemp("extract")
    text_folder(folder / "model")
    (folder / "pairs.jsonl").write_text("\n".join(json.dumps(vars(pair)) for pair in toy_pairs(160)))
    return folder


@pytest.fixture
def command(folder: Path) -> list[str]:
    """`extract` over the tiny model; what follows is the file to write."""
    settings = ["--model", str(folder / "model"), "--token-budget", "40", "--held-out", "0.1"]
    return ["extract", str(folder / "pairs.jsonl"), *settings, "--out"]


def made(command: list[str], out: Path) -> tk.SteeringVector:
    assert cli.main([*command, str(out)]) == 0
    return tk.SteeringVector.load(out)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], tk.SteeringVector]:
    """The vector of one undisturbed process, this one, for a command."""
    known: dict[str, tk.SteeringVector] = {}

    def lookup(command: list[str]) -> tk.SteeringVector:
        key = " ".join(command)
        if key not in known:
            known[key] = made(command, tmp_path_factory.mktemp("alone") / "v.safetensors")
        return known[key]

    return lookup


# -- several processes -------------------------------------------------------------------------------------------------

LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
    "accelerate": ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port=0"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "launcher"), [("mean", "torchrun"), ("logistic", "torchrun"), ("pca", "accelerate")]
)
def test_two_processes_share_the_work(
    method: str, launcher: str, command: list[str], alone: Callable[[list[str]], tk.SteeringVector], tmp_path: Path
) -> None:
    """The states are the same to the last bit; moments are summed in another order, in float64.

    States that were left behind by processes which were killed before their first record are not taken over.
    """
    command = [*command[:-1], "--method", method, "--out"]
    expected, out = alone(command), tmp_path / "v.safetensors"
    for shard in ("shard-0", "shard-1"):
        (left := tmp_path / "v.safetensors.partial" / "states" / shard).mkdir(parents=True)
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

command, moments = sys.argv[1:-1], sys.argv[-1].split(",")
progress._EVERY = 0.02
saved, write = [], safetensors.torch.save_file

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def half_a_record(tensors, path, **options):
    write(tensors, path, **options)
    saved.append(path)
    if len(saved) == 3:
        os.truncate(path, os.path.getsize(path) // 2)
        die()

def half_a_vector(path, content):
    with open(path, "wb") as file:
        file.write(content[: len(content) // 2])
    die()

def run(moment):
    if moment == "record":
        progress._EVERY = 0.0
        safetensors.torch.save_file = half_a_record
    if moment == "vector":
        pathlib.Path.write_bytes = half_a_vector
    if moment in ("clearing", "cleared"):
        import shutil
        def clear(folder, **_):
            if moment == "cleared":
                (pathlib.Path(folder) / "states" / "states.bin").unlink()
            die()
        shutil.rmtree = clear
    return cli.main([*command, moment + ".safetensors"])

if moments == ["never"]:
    sys.exit(run("never"))
import truthkit
truthkit.load(command[command.index("--model") + 1])  # what it imports is there for all of them
for moment in moments:
    child = os.fork()
    if not child:
        os._exit(run(moment))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def dying(command: list[str], moments: str, folder: Path) -> subprocess.Popen[str]:
    """Real processes that kill themselves at these moments of the command, each with a file of that name, or one
    that is to be killed."""
    started = [sys.executable, "-c", _DYING, *command, moments]
    return subprocess.Popen(started, env=ENVIRONMENT, cwd=folder, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_while_it_writes(
    command: list[str], alone: Callable[[list[str]], tk.SteeringVector], tmp_path: Path
) -> None:
    """Half a record, half a vector, and all done but the records not cleared away, or the states alone."""
    moments = ("record", "vector", "clearing", "cleared")
    said, _ = dying(command, ",".join(moments), tmp_path).communicate(timeout=200)
    assert [line for line in said.splitlines() if line.startswith("-")] == [str(-signal.SIGKILL)] * len(moments)
    for moment in moments:
        assert (tmp_path / f"{moment}.safetensors.partial" / "states" / "progress.safetensors").is_file()
        check_resumed(command, alone(command), tmp_path / f"{moment}.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["logistic", "mean", "pca"])
def test_killed_while_it_reads(
    method: str, command: list[str], alone: Callable[[list[str]], tk.SteeringVector], tmp_path: Path
) -> None:
    """SIGKILL from outside, at a batch of chance, some records after the first."""
    command = [*command[:-1], "--method", method, "--out"]
    record = tmp_path / "never.safetensors.partial" / "states" / "progress.safetensors"
    with dying(command, "never", tmp_path) as process:
        while not record.exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(0.1)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    check_resumed(command, alone(command), tmp_path / "never.safetensors")


def check_resumed(command: list[str], expected: tk.SteeringVector, out: Path) -> None:
    """The same command again gives what an undisturbed process gives, and leaves nothing else."""
    resumed = made(command, out)
    assert all(torch.equal(resumed[layer], expected[layer]) for layer in expected)
    assert resumed.provenance == expected.provenance
    assert {path.name for path in out.parent.glob(f"{out.name}*")} == {out.name}
