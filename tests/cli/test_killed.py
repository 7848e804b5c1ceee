"""`eval`, `extract` and `train` killed at any moment and at every kind of system call, and twice at once in one folder.

Oracle: the command undisturbed. Commands run in children of one process that has torch imported, so that a kill costs
about as much as the work it interrupts.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.cli.test_train import amateur
from tests.conftest import ROOT
from tests.evaluation.running.test_processes import ENVIRONMENT, eval_command, factor, outcome
from tests.models.folders import text_folder
from tests.steering.test_extract import toy_pairs
from tests.training.toys import chat_folder, halueval
from truthkit.steering import SteeringVector

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

LIMIT = 120.0
"""Seconds that no command may take."""

CALLS = "openat,write,pwrite64,fsync,ftruncate,rename,unlink,unlinkat,mkdir,rmdir,flock"

_NURSERY = """
import json, os, signal, sys
import peft, torch, transformers
import transformers.models.llama.modeling_llama, transformers.models.llava.modeling_llava
import truthkit.steering, truthkit.training.lora, truthkit.evaluation.running.runs
from truthkit import cli
from truthkit.steering.extraction import progress
progress._EVERY = 0.05
print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if (pid := os.fork()) == 0:
        os.dup2(os.open(asked["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
        os.dup2(2, 1)
        if asked["stopped"]:
            os.kill(os.getpid(), signal.SIGSTOP)
        try:
            code = cli.main(asked["arguments"])
        except BaseException as error:
            print("raised", repr(error), flush=True)
            code = 99
        os._exit(code)
    print(pid, flush=True)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Nursery:
    """Starts commands as children of a process of its own, one at a time."""

    def __init__(self, folder: Path):
        self.err = folder / "err"
        self.process = subprocess.Popen(
            [sys.executable, "-c", _NURSERY],
            env=ENVIRONMENT,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def start(self, arguments: list[str], *, stopped: bool = False) -> int:
        """The process of a command; `end` waits for it."""
        assert self.process.stdin is not None
        asked = {"arguments": arguments, "err": str(self.err), "stopped": stopped}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return int(self._read())

    def end(self) -> int:
        """How the last command ended."""
        return int(self._read())

    def said(self) -> str:
        """What it printed that is truthkit's."""
        return "\n".join(line for line in self.err.read_text().splitlines() if line.startswith("truthkit"))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.wait(LIMIT)


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    one = Nursery(tmp_path_factory.mktemp("nursery"))
    yield one
    one.close()


@dataclass
class Work:
    """A command that writes into a folder of its own.

    Attributes:
        command: its arguments, given what to write.
        name: of what it writes, in that folder.
        made: what is to be equal, of a folder in which it has ended.
        left: the files that it leaves there.
        kept: what is done so far, which no kill may take away: a list whose beginning stays.
    """

    command: Callable[[Path], list[str]]
    name: str
    made: Callable[[Path], Any]
    left: set[str]
    kept: Callable[[Path], list[Any]]

    def check(self, folder: Path, whole: Any) -> None:
        """That the command has ended in `folder` as it does undisturbed."""
        assert self.made(folder / self.name) == whole, "changed"
        found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert found == self.left, "something was left behind"


def _keys(out: Path) -> list[str]:
    path = out / "records.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    keys = [json.loads(line)["key"] for line in lines]
    assert len(keys) == len(set(keys)), "doubled"
    return keys


def _evaluated(out: Path) -> Any:
    return outcome(out), sorted(_keys(out))


def _done(out: Path) -> list[int]:
    path = out.with_name(f"{out.name}.partial") / "states" / "progress.safetensors"
    return [0] * int(load_file(path)["done"]) if path.exists() else []


def _extracted(out: Path) -> Any:
    vector = SteeringVector.load(out)
    return {layer: vector[layer].tolist() for layer in vector}, vector.provenance


def _losses(out: Path) -> list[Any]:
    path = out.with_name(f"{out.name}.partial") / "state.safetensors"
    return load_file(path)["losses"].tolist() if path.exists() else []


def _trained(out: Path) -> Any:
    tensors = {name: value.tolist() for name, value in load_file(out / "adapter_model.safetensors").items()}
    return tensors, json.loads((out / "training.json").read_text())


def _eval(folder: Path) -> Work:
    arguments = factor(folder)
    left = {f"out/{name}" for name in ("config.json", "records.jsonl", "items.jsonl", "summary.json")}
    return Work(lambda out: eval_command(arguments, out), "out", _evaluated, {*left, "out/.locks/0-of-1.lock"}, _keys)


def _extract(folder: Path) -> Work:
    text_folder(folder / "model")
    pairs = folder / "pairs.jsonl"
    pairs.write_text("\n".join(json.dumps(vars(pair)) for pair in toy_pairs(400)))
    settings = ["--model", str(folder / "model"), "--token-budget", "40", "--method", "logistic"]
    return Work(
        lambda out: ["extract", str(pairs), *settings, "--out", str(out)],
        "v.safetensors",
        _extracted,
        {"v.safetensors"},
        _done,
    )


def _train(folder: Path) -> Work:
    chat_folder(folder / "model")
    halueval(folder / "qa.json", 12)
    names = ("README.md", "adapter_config.json", "adapter_model.safetensors", "training.json")
    return Work(
        lambda out: amateur(folder, out, "--steps", "60", "--save-every", "0.05"),
        "adapter",
        _trained,
        {f"adapter/{name}" for name in names},
        _losses,
    )


COMMANDS = {"eval": _eval, "extract": _extract, "train": _train}


@pytest.fixture(scope="module", params=list(COMMANDS))
def undisturbed(
    request: pytest.FixtureRequest, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Work, Any, float]:
    """A command, what it makes, and how many seconds it takes."""
    folder = tmp_path_factory.mktemp(request.param)
    work = COMMANDS[request.param](folder)
    whole = folder / "whole"
    whole.mkdir()
    began = time.monotonic()
    nursery.start(work.command(whole / work.name))
    assert nursery.end() == 0, nursery.err.read_text()
    seconds = time.monotonic() - began
    found = work.made(whole / work.name)
    work.check(whole, found)
    return work, found, seconds


def test_killed_at_twenty_random_points(undisturbed: tuple[Work, Any, float], nursery: Nursery, tmp_path: Path) -> None:
    """Again and again in one folder until the command ends; then from the beginning."""
    work, whole, usual = undisturbed
    folder, draw, kills, ends, slowest = tmp_path / "killed", random.Random(8), 0, 0, 0.0
    folder.mkdir()
    before: list[Any] = []
    while kills < 20 or ends < 2:
        began = time.monotonic()
        pid = nursery.start(work.command(folder / work.name))
        if kills < 20:
            time.sleep(draw.uniform(0, 0.9 * usual))
            with suppress(ProcessLookupError):  # it has ended already
                os.kill(pid, signal.SIGKILL)
        code = nursery.end()
        assert code in (0, -signal.SIGKILL), nursery.err.read_text()
        slowest = max(slowest, time.monotonic() - began)
        kills += code != 0
        if code == 0:
            work.check(folder, whole)
            shutil.rmtree(folder)
            folder.mkdir()
            before, ends = [], ends + 1
        elif not (folder / work.name).exists() or work.name == "out":
            found = work.kept(folder / work.name)
            assert found[: len(before)] == before, "lost"
            before = found
    print(f"{kills} kills, {ends} ends; undisturbed {usual:.1f} s, the slowest {slowest:.1f} s")
    assert slowest < 5 * usual + 30


def _traced(nursery: Nursery, arguments: list[str], *options: str) -> int:
    """How a command ends under strace with these options."""
    pid = nursery.start(arguments, stopped=True)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.01)
    command = ["strace", "-f", "-y", "-p", str(pid), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        os.kill(pid, signal.SIGCONT)
        code = nursery.end()
        tracer.terminate()  # it may wait for threads that went with the process
    return code


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_killed_at_system_calls(undisturbed: tuple[Work, Any, float], nursery: Nursery, tmp_path: Path) -> None:
    """Before each kind of call about its folder: the first one, the last, and one of those between."""
    work, whole, _ = undisturbed
    (tmp_path / "traced").mkdir()
    log = tmp_path / "log"
    assert _traced(nursery, work.command(tmp_path / "traced" / work.name), f"-etrace={CALLS}", "-o", str(log)) == 0
    seen: dict[tuple[str, str], int] = {}
    places: dict[str, list[int]] = {}
    first = ""
    for line in log.read_text().splitlines():
        if (match := re.match(r"(\d+) +(\w+)\(", line)) is None:
            continue
        thread, call = match.groups()
        first = first or thread
        seen[thread, call] = seen.get((thread, call), 0) + 1
        if thread == first and str(tmp_path / "traced") in line:
            places.setdefault(call, []).append(seen[thread, call])
    draw, killed = random.Random(8), dict[str, list[int]]()
    for call, numbers in places.items():
        inner = numbers[1:-1]
        chosen = sorted({numbers[0], numbers[-1], *draw.sample(inner, min(1, len(inner)))})
        for number in chosen:
            folder = tmp_path / f"{call}-{number}"
            folder.mkdir()
            inject = f"-einject={call}:signal=KILL:when={number}"
            code = _traced(nursery, work.command(folder / work.name), f"-etrace={CALLS}", inject, "-o", os.devnull)
            assert code in (0, -signal.SIGKILL), nursery.err.read_text()
            if code:
                killed.setdefault(call, []).append(number)
            kept = work.kept(folder / work.name)
            nursery.start(work.command(folder / work.name))
            assert nursery.end() == 0, f"after {call} {number}: {nursery.err.read_text()}"
            work.check(folder, whole)
            if work.name == "out":
                assert work.kept(folder / work.name)[: len(kept)] == kept, "lost"
            shutil.rmtree(folder)
    print(f"killed before {killed}")
    assert sum(map(len, killed.values())) >= 10


def test_two_processes_on_one_folder(undisturbed: tuple[Work, Any, float], nursery: Nursery, tmp_path: Path) -> None:
    """Started together: one makes it all, and the other is told who does, or finds it made."""
    work, whole, usual = undisturbed
    other = Nursery(tmp_path)
    refused = 0
    try:
        for number in range(4):
            folder = tmp_path / str(number)
            folder.mkdir()
            arguments = work.command(folder / work.name)
            nursery.start(arguments)
            time.sleep(number * usual / 4)
            other.start(arguments)
            codes = [nursery.end(), other.end()]
            assert 0 in codes, (nursery.said(), other.said())
            for one, code in zip((nursery, other), codes, strict=True):
                assert code in (0, 1), one.err.read_text()
                if code:
                    refused += 1
                    assert re.search(r"is being written by (process \d+ on|another process)", one.said()), one.said()
                    assert "\n" not in one.said()
            work.check(folder, whole)
    finally:
        other.close()
    print(f"{refused} of 4 refused")
    assert refused
