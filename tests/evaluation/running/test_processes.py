"""Benchmark runs whose process is killed, and runs of several processes. Oracle: one process, undisturbed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, shared_folder
from tests.models.folders import byte_tokenizer, text_folder
from truthkit import cli
from truthkit.evaluation.report.compare import read_run
from truthkit.scenes.questions import held_out, questions
from truthkit.scenes.render import render

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


DAYS = 300
"""Items of `factor`: more than are done while a test looks at the first."""


def lines(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def pictures(folder: Path, count: int) -> list[Any]:
    folder.mkdir()
    scenes = held_out(count, seed=1)
    for number, scene in enumerate(scenes):
        render(scene).save(folder / f"{number:012}.png")
    return scenes


def pope(folder: Path) -> list[str]:
    records = [
        {"question_id": 10 * n + i, "image": f"{n:012}.png", "text": one.text, "label": "yes" if one.present else "no"}
        for n, scene in enumerate(pictures(folder / "images", 24))
        for i, one in enumerate(questions(scene, random.Random(n), kind="random"))
    ]
    data = lines(folder / "questions.json", records)
    return ["pope", "--data", data, "--images", str(folder / "images"), "--model", "scene-vlm", "--sample"]


def mme(folder: Path) -> list[str]:
    pictures(folder / "images", 60)
    records = [
        {"category": "existence", "image": f"{n:012}.png", "question": f"Is there a {name} in the image?", "answer": a}
        for n in range(60)
        for name, a in (("cup", "Yes"), ("sofa", "No"))
    ]
    data = lines(folder / "mme.jsonl", records)
    return ["mme", "--data", data, "--images", str(folder / "images"), "--model", "scene-vlm"]


def chair(folder: Path) -> list[str]:
    pytest.importorskip("nltk", reason="the extra eval is not installed")
    (folder / "nltk_data").symlink_to(shared_folder() / "data" / "nltk_data")
    scenes = pictures(folder / "images", 40)
    names = sorted({name for scene in scenes for name in scene.names})
    (folder / "synonyms.txt").write_text("\n".join(names))
    (folder / "chair_gt_nltk.json").write_text(json.dumps({str(n): list(s.names) for n, s in enumerate(scenes)}))
    return ["chair", "--data", str(folder), "--images", str(folder / "images"), "--model", "scene-vlm"]


def of_text(folder: Path) -> list[str]:
    """Options of tasks on a tiny model of text."""
    text_folder(folder / "model")
    tokenizer = byte_tokenizer(eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = (
        "{% for turn in messages %}{{ turn['role'] }}: {{ turn['content'] }} {% endfor %}assistant: "
    )
    tokenizer.save_pretrained(folder / "model")
    return ["--model", str(folder / "model")]


def factor(folder: Path) -> list[str]:
    rows = "".join(f"Day {i},Day {i},is blue.,is green {i}.,is red.,is out.\n" for i in range(DAYS))
    heads = "turncated_prefixes,full_prefix,completion,contradiction_0,contradiction_1,contradiction_2\n"
    (folder / "news_factor.csv").write_text(heads + rows)
    return ["factor", "--data", str(folder / "news_factor.csv"), *of_text(folder)]


def open_ended(folder: Path) -> list[str]:
    data = lines(folder / "prompts.jsonl", [{"prompt": f"It was day {i}"} for i in range(60)])
    return ["open-ended", "--data", data, "--scorer", "none", "--max-new-tokens", "12", *of_text(folder)]


def factcheck(folder: Path) -> list[str]:
    labels = ("true", "half", "false")
    data = lines(folder / "c.jsonl", [{"claim": f"Day {i} is dry.", "label": labels[i % 3]} for i in range(60)])
    return ["factcheck", "--data", data, "--max-new-tokens", "4", *of_text(folder)]


def truthfulqa(folder: Path) -> list[str]:
    targets = {"Yes.": 1, "No.": 0, "It depends on the day.": 0}
    records = [{"question": f"Is it {i}?", "mc1_targets": targets, "mc2_targets": targets} for i in range(70)]
    (folder / "mc_task.json").write_text(json.dumps(records))
    return ["truthfulqa", "--data", str(folder / "mc_task.json")]


def eval_command(arguments: list[str], out: Path) -> list[str]:
    return ["eval", *arguments, "--batch-size", "2", "--out", str(out)]


def start(arguments: list[str], out: Path, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "truthkit.cli", *eval_command(arguments, out)]
    return subprocess.Popen(
        command, env=ENVIRONMENT | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def outcome(folder: Path) -> tuple[Any, list[Any]]:
    found = read_run(folder)
    return found.summary["metrics"], found.items


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], tuple[list[str], Path]]:
    """A task's command, and the folder of its run by one process, this one."""
    known: dict[Any, tuple[list[str], Path]] = {}

    def lookup(task: Callable[[Path], list[str]]) -> tuple[list[str], Path]:
        if task not in known:
            folder = tmp_path_factory.mktemp(task.__name__)
            arguments = task(folder)
            assert cli.main(eval_command(arguments, folder / "whole")) == 0
            known[task] = arguments, folder / "whole"
        return known[task]

    return lookup


@pytest.mark.slow
@pytest.mark.parametrize("task", [pope, mme, chair, factor, open_ended, factcheck, truthfulqa])
def test_killed_in_the_middle(
    task: Callable[[Path], list[str]], undisturbed: Callable[[Any], tuple[list[str], Path]], tmp_path: Path
) -> None:
    """Nothing is lost, nothing doubled, and the numbers are those of a run that nobody disturbed. In short:
    test_interrupted.py, and test_records.py for SIGKILL."""
    (arguments, whole), out = undisturbed(task), tmp_path / "killed"
    process = start(arguments, out)
    records = out / "records.jsonl"
    until = time.monotonic() + 120
    while not (records.exists() and records.stat().st_size) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = [json.loads(line)["key"] for line in records.read_text().splitlines() if line.endswith("}")]
    assert kept
    assert not (out / "summary.json").exists(), "it was done before it was killed; give it more to do"
    assert cli.main(eval_command(arguments, out)) == 0
    keys = [json.loads(line)["key"] for line in records.read_text().splitlines()]
    assert keys[: len(kept)] == kept
    assert len(keys) == len(set(keys)) == len(read_run(whole).items)
    metrics, items = outcome(out)
    expected, others = outcome(whole)
    assert metrics == pytest.approx(expected, abs=1e-4)
    assert [item["key"] for item in items] == [item["key"] for item in others]
    assert [item.get("correct") for item in items] == [item.get("correct") for item in others]


def test_two_processes_equal_one(undisturbed: Callable[[Any], tuple[list[str], Path]], tmp_path: Path) -> None:
    """As `accelerate launch` and torchrun start them: each says of itself which one it is."""
    (arguments, whole), out = undisturbed(pope), tmp_path / "two"
    both = [start(arguments, out, RANK=str(rank), WORLD_SIZE="2") for rank in (0, 1)]
    assert [process.wait(timeout=200) for process in both] == [0, 0]
    assert outcome(out) == outcome(whole)
    shares = [(out / name).read_text().splitlines() for name in ("records.jsonl", "records-1.jsonl")]
    assert min(map(len, shares)) > 30
    images = [{tuple(json.loads(line)["images"]) for line in one} for one in shares]
    assert not images[0] & images[1]


@pytest.mark.slow
def test_under_accelerate_launch(undisturbed: Callable[[Any], tuple[list[str], Path]], tmp_path: Path) -> None:
    (arguments, whole), out = undisturbed(pope), tmp_path / "two"
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port=0"]
    command = [sys.executable, *launcher, "-m", "truthkit.cli", *eval_command(arguments, out)]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, timeout=300)
    assert outcome(out) == outcome(whole)
