"""A study from file to verdicts on a tiny model: chosen, compared, gone on with, amended, refused."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.conftest import ROOT
from tests.study.conftest import write_traps
from truthkit import cli
from truthkit.evaluation.benchmark import Metric
from truthkit.evaluation.report.compare import Run, compare, read_run
from truthkit.evaluation.running.asking import Asking
from truthkit.statistics.intervals import benjamini_hochberg, holm
from truthkit.study.conduct import choose, decide
from truthkit.study.sets import StudySet

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all batches that a model was asked."""
    sizes: list[int] = []
    for name in ("write", "_choose"):
        real = getattr(Asking, name)

        def counted(self: Asking, batch: Any, *args: Any, real: Any = real, **options: Any) -> Any:
            sizes.append(len(batch))
            return real(self, batch, *args, **options)

        monkeypatch.setattr(Asking, name, counted)
    return sizes


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """`truthkit study ...` in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "160")

    def run(file: Path, *more: object) -> tuple[int, str, str]:
        out = file.parent / "out"
        code = cli.main(["study", str(file), "--out", str(out), "--set", f"DATA={file.parent}", *map(str, more)])
        return code, *capsys.readouterr()

    return run


def document(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((file.parent / "out" / "study.json").read_text())
    return found


def rows(found: dict[str, Any], task: str) -> dict[str, dict[str, Any]]:
    return {row["label"]: row for row in found["rows"] if row["set"] == f"{task}@tiny"}


def test_from_file_to_verdicts(study: Path, command: Command, asked: list[int]) -> None:
    """All of it once, the second time from what is on the disk; figures as `compare` has them."""
    code, out, err = command(study)
    assert code == 0, err
    assert "run 1 of" in err
    assert " left" in err
    assert str(study.parent / "out" / "table.md") in out
    found = document(study)
    trap, text = rows(found, "memotrap"), rows(found, "open-ended")
    cad = next(row for row in trap.values() if row["entry"] == "cad")
    assert set(trap) == {"greedy", "adacad", cad["label"]}  # where nothing is drawn, greedy is the only control
    figures = [one["value"] for one in cad["chosen_from"]]
    best = cad["chosen_from"][figures.index(max(figures))]
    assert (cad["decoder"], best["n"]) == (best["decoder"], found["sets"][0]["development"])
    assert [one["decoder"] for one in cad["chosen_from"]] == ["cad:alpha=0.5", "cad:alpha=2"]
    controls = {label: row["control_of"] for label, row in text.items() if row["role"] == "control"}
    own = next(label for label, row in text.items() if row["role"] == "method")
    assert controls
    assert all(names == [own] for names in controls.values())
    assert text[own]["against"]["strongest control"]["label"] in controls
    assert (text[own]["n"], found["sets"][1]["test"], found["sets"][1]["development"]) == (6, 6, 3)
    assert found["study"]["family"] == 3

    folder = study.parent / "out"
    changed = compare(read_run(folder / trap["greedy"]["folder"]), read_run(folder / cad["folder"]))
    difference = changed.changes["accuracy"]
    assert cad["against"]["greedy"]["difference"] == pytest.approx(difference.value)
    methods = [row for row in found["rows"] if row["role"] == "method"]
    p = [row["against"]["greedy"]["p"] for row in methods]
    assert [row["against"]["greedy"]["p_holm"] for row in methods] == holm(p)
    assert [row["against"]["greedy"]["p_bh"] for row in methods] == benjamini_hochberg(p)
    assert all(row["verdict"] in ("better", "worse", "equivalent", "no evidence") and row["said"] for row in methods)
    parts = [[item["prompt"] for item in read_run(folder / name).items] for name in (cad["folder"], cad["folder"])]
    development = _run_folder(folder, "development", "cad:alpha=2")
    assert not set(parts[0]) & {item["prompt"] for item in read_run(development).items}

    once, before = len(asked), (folder / "study.json").read_text()
    looks = (folder / "looks.jsonl").read_text()
    assert command(study)[0] == 0
    assert len(asked) == once
    assert (folder / "looks.jsonl").read_text() == looks
    assert document(study)["rows"] == found["rows"]
    assert before
    (_run_folder(folder, "test", "adacad") / "summary.json").unlink()
    assert command(study)[0] == 0
    assert len(asked) == once  # its records were there
    assert document(study)["rows"] == found["rows"]


def test_ties_go_to_the_first_in_the_file(study: Path) -> None:
    """Also where the first has no figure, and of a metric that is better where it is less."""
    decided = decide(study, study.parent / "out", {"DATA": str(study.parent)})
    one = decided.sets[0]
    ((cad, _), _) = decided.methods[one.id]

    def place(of: StudySet, *values: float) -> int:
        found = {
            of.key("development", way, 0): Run(Path(), {"metrics": {"accuracy": value}, "n": {"accuracy": 9}}, [])
            for way, value in zip(cad.candidates, values, strict=True)
        }
        return int(choose(of, cad, found)["place"])

    assert [place(one, *values) for values in ((0.5, 0.5), (0.4, 0.5), (math.nan, 0.1), (0.6, 0.5))] == [0, 1, 1, 0]
    fewer = replace(one, benchmark=replace(one.benchmark, metrics=(Metric("accuracy", better=-1),)))
    assert [place(fewer, *values) for values in ((0.5, 0.5), (0.4, 0.5), (0.6, 0.5))] == [0, 0, 1]


def test_amended_and_refused(study: Path, command: Command) -> None:
    """Rows may be added, and say that they came late; what was decided stays, and is what it was."""
    study.write_text(study.read_text().partition('[[method]]\ndecoder = "adacad"')[0])
    assert command(study)[0] == 0
    first = rows(document(study), "memotrap")
    more = study.with_name("more.toml")
    more.write_text('[[method]]\ndecoder = "coiecd"\ntasks = ["memotrap"]\n')
    code, _, err = command(more)
    assert code == 2
    assert "has no name" in err
    code, _, err = command(more, "--amend")
    assert code == 0, err
    found = document(study)
    late = rows(found, "memotrap")["coiecd"]
    assert late["test_looks"] == 2
    assert late["said"].endswith("this is look 2.")
    for label, row in rows(found, "memotrap").items():
        if label != "coiecd":
            assert row["test_looks"] == 1
            assert {key: row[key] for key in ("value", "chosen_from", "folder")} == {
                key: first[label][key] for key in ("value", "chosen_from", "folder")
            }
    assert {(one["part"], one["stage"]) for one in found["looks"] if one["set"] == "memotrap@tiny"} == {
        ("development", 1),
        ("test", 1),
        ("test", 2),
    }
    assert command(study)[0] == 0  # the first file again: nothing is left out that it had
    assert "coiecd" in rows(document(study), "memotrap")

    text = study.read_text()
    for old, new, said in (
        ("alpha = [0.5, 2]", "alpha = [0.5, 1]", "changes the method 'cad'"),
        ("limit = 6", "limit = 7", "changes the task 'open-ended', which was decided"),
        ("resamples = 500", "resamples = 600", "changes the study, which was decided"),
        ('decoder = "cad"\ngrid = { alpha = [0.5, 2] }', 'decoder = "cad:alpha=3"', "leaves out the method 'cad'"),
    ):
        assert old in text
        study.write_text(text.replace(old, new))
        code, _, err = command(study, "--amend")
        assert (code, said in err) == (2, True), err
    study.write_text(text + '\n[[method]]\ndecoder = "adacad"\ntasks = ["memotrap"]\n')
    code, _, err = command(study)
    assert code == 2
    assert "adds the method 'adacad' to the study" in err
    assert "--amend" in err
    assert command(study, "--amend")[0] == 0
    assert rows(document(study), "memotrap")["adacad"]["test_looks"] == 3
    write_traps(study.with_name("traps.csv"), range(25))
    code, _, err = command(study)
    assert code == 2
    assert "the data has changed" in err


def test_planted_leakage_is_refused(study: Path, command: Command) -> None:
    """Items of the test file in another file for development, under other names and in another order."""
    write_traps(study.with_name("other.csv"), range(30, 21, -1))
    text = study.read_text().replace("development = 0.4", 'development_data = "${DATA}/other.csv"')
    study.write_text(text)
    code, _, err = command(study)
    assert code == 2
    assert "memotrap: items 'other" in err
    assert "ask the same" in err
    assert "2 of 24 test items are in both" in err
    assert not list((study.parent / "out").glob("runs/*"))
    write_traps(study.with_name("other.csv"), range(30, 40))
    assert command(study, "--plan")[0] == 0


def test_a_plan_asks_only_a_few(study: Path, command: Command, asked: list[int]) -> None:
    code, out, err = command(study, "--plan")
    assert code == 0, err
    assert "memotrap@tiny" in out
    assert " MB" in out
    assert "timing open-ended@tiny" in err
    assert sum(asked) <= 4 * 12
    assert not (study.parent / "out").exists()


def test_steering_seeds_and_options_of_tasks(study: Path, command: Command) -> None:
    """A grid of strengths, drawn answers under three seeds, and rows that differ in an option of the task."""
    vector = tk.SteeringVector({1: 40 * torch.ones(48)}, 4)
    vector.save(study.with_name("v.safetensors"))
    text = study.read_text().partition("[[method]]")[0].replace("resamples = 500", "resamples = 500\nseeds = [3, 4, 5]")
    text += """
[[method]]
id = "steered"
decoder = "dola:layers=0+1"
grid = { steer = ["v.safetensors:0.5", "v.safetensors:-0.5"] }
tasks = ["open-ended"]

[[method]]
id = "cooler"
sample = true
temperature = 0.5
tasks = ["open-ended"]

[[method]]
id = "all"
options = { drop_last = false }
tasks = ["open-ended"]
"""
    study.write_text(text)
    code, _, err = command(study)
    assert code == 0, err
    found = rows(document(study), "open-ended")
    (base,) = [row for row in found.values() if row["role"] == "baseline"]
    assert (base["label"], base["seeds"], base["items_run"]) == ("drop_last=True", [3], 6)
    steered = next(row for row in found.values() if row["entry"] == "steered")
    assert steered["label"] in ("dola:layers=0+1, steer v.safetensors:0.5", "dola:layers=0+1, steer v.safetensors:-0.5")
    assert {label for label, row in found.items() if steered["label"] in row["control_of"]} >= {
        "dola:layers=0+1",
        steered["label"].removeprefix("dola:layers=0+1, "),
    }
    drawn = found["cooler"]
    assert (drawn["seeds"], drawn["items_run"], len(drawn["folders"])) == ([3, 4, 5], 18, 3)
    values = [read_run(study.parent / "out" / name).summary["metrics"]["diversity"] for name in drawn["folders"]]
    assert drawn["value"] == pytest.approx(sum(values) / 3) == drawn["metrics"]["diversity"]
    assert found["all"]["options"] == {"drop_last": False}
    vector = tk.SteeringVector({1: 41 * torch.ones(48)}, 4)
    vector.save(study.with_name("v.safetensors"))
    code, _, err = command(study)
    assert code == 2
    assert "method steered: its v.safetensors:0.5 was" in err


@pytest.mark.slow
def test_two_processes_do_nothing_twice(study: Path, tmp_path: Path) -> None:
    """Both end well, with the same results, and no item was asked twice."""
    arguments = [sys.executable, "-m", "truthkit.cli", "study", str(study), "--out", str(tmp_path / "out")]
    environment = os.environ | {"DATA": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate(timeout=300)[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    for records in (tmp_path / "out" / "runs").glob("*/records.jsonl"):
        keys = [json.loads(line)["key"] for line in records.read_text().splitlines()]
        assert len(keys) == len(set(keys))
    assert len(document(study)["rows"]) >= 6


def _run_folder(folder: Path, part: str, decoder: str) -> Path:
    """The run of this decoder on MemoTrap."""
    for path in sorted((folder / "runs").iterdir()):
        config = json.loads((path / "config.json").read_text())
        if (config["task"], config["part"], config["decoder"]) == ("memotrap", part, decoder):
            return path
    raise AssertionError(f"no run of {decoder} on {part}")
