"""The package of `docs/develop/add-a-task.md`, installed as the page says: no file of truthkit's names it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.docs.test_pages import blocks
from truthkit import cli
from truthkit.evaluation.report.compare import read_run
from truthkit.evaluation.tasks import benchmarks, builtin

PAGE = ROOT / "docs" / "develop" / "add-a-task.md"
QUIZ = [
    {"question": "What is the capital of France?", "answer": "paris"},
    {"question": "What is the capital of Italy?", "answer": "no such place"},
]


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip has installed the page's package into."""
    source, target = tmp_path_factory.mktemp("quiz"), tmp_path_factory.mktemp("site")
    (source / "quiz.py").write_text(blocks(PAGE, "python")[0])
    (source / "pyproject.toml").write_text(blocks(PAGE, "toml")[0])
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return target


@pytest.fixture
def plugged(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """That folder on the path, and truthkit as if just started."""
    monkeypatch.syspath_prepend(str(installed))
    benchmarks.cache_clear()
    yield installed
    monkeypatch.undo()
    benchmarks.cache_clear()
    sys.modules.pop("quiz", None)
    importlib.invalidate_caches()


@pytest.fixture
def command(smollm2: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    monkeypatch.setattr("truthkit.models.load", lambda *_args, **_options: smollm2)

    def run(*argv: object) -> str:
        code = cli.main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return run


def test_it_is_asked_scored_compared_and_reported(plugged: Path, command: Callable[..., str], tmp_path: Path) -> None:
    """The oracle: whether the words are in the answers that the records keep."""
    text = command("eval", "--help")
    assert "\n  quiz\n    Short questions, by whether the answer holds the right words." in text
    assert "truthkit eval quiz --data quiz.jsonl --out runs/quiz" in text
    assert "quiz: tell capital letters from small ones (default: no)" in " ".join(text.split())
    data = write(tmp_path / "quiz.jsonl", QUIZ)
    out = command("eval", "quiz", "--data", data, "--decoder", "dola", "--controls", "--out", tmp_path / "runs")
    names = {path.name for path in (tmp_path / "runs").iterdir()}
    assert names >= {"decoder", "greedy", "sampling", "constraint-alone"}
    assert "│ accuracy │ 50.00 │" in out
    assert "% ↑" in out
    one = read_run(tmp_path / "runs" / "greedy")
    assert one.summary["metrics"]["accuracy"] == sum("paris" in item["output"].casefold() for item in one.items) / 2

    case = command("eval", "quiz", "--data", data, "--case", "--limit", "1", "--out", tmp_path / "case")
    assert "│ accuracy │  0.00 │" in case
    assert "--case" in command("score", "quiz", "--help")
    answers = write(tmp_path / "answers.jsonl", [{"answer": "It is Paris."}, {"answer": "Rome"}])
    scored = command("score", "quiz", answers, "--data", data)
    assert "accuracy      50.00   [" in scored
    assert "words          2.00   [" in scored
    assert json.loads(command("score", "quiz", answers, "--data", data, "--json"))["config"]["questions"] == 2

    compared = command("compare", tmp_path / "runs" / "greedy", tmp_path / "runs" / "sampling")
    assert "McNemar" in compared
    assert "words" in compared
    command("report", tmp_path / "runs", "--out", tmp_path / "report.md")
    report = (tmp_path / "report.md").read_text()
    assert report.startswith("# Quiz with bundled model")
    assert "| run | accuracy, % ↑ | length of an answer, words | time per item |" in report
    assert "difference in accuracy" in report


def test_a_fresh_process_knows_it(installed: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); from truthkit.cli import main; main(['eval', '--help'])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "\n  quiz\n" in shown.stdout
    assert shown.stderr == ""


def test_reports_without_the_package_show_plain_numbers(
    plugged: Path, command: Callable[..., str], tmp_path: Path
) -> None:
    data = write(tmp_path / "quiz.jsonl", QUIZ)
    for name, options in (("a", []), ("b", ["--decoder", "dola"])):
        command("eval", "quiz", "--data", data, *options, "--limit", "1", "--out", tmp_path / "runs" / name)
    sys.path.remove(str(plugged))
    benchmarks.cache_clear()
    assert benchmarks() == builtin()
    command("report", tmp_path / "runs", "--out", tmp_path / "report.md")
    assert "| run | accuracy | words | time per item |" in (tmp_path / "report.md").read_text()


BROKEN = {
    "missing": ("nowhere:QUIZ", "No module named 'nowhere'"),
    "failing": ("failing:QUIZ", "half done"),
    "leaving": ("leaving:QUIZ", "ends the program"),
    "other": ("other:QUIZ", "is a int; expected a Benchmark"),
    "taken": ("taken:POPE", "there is a benchmark 'pope' already"),
    "odd": ("odd:ODD", "option 'size' of odd.task is annotated list"),
    "named": ("named:NAMED", "a benchmark is named 'A b'"),
}
SOURCES = {
    "failing": "raise RuntimeError('half done')",
    "leaving": "raise SystemExit(3)",
    "other": "QUIZ = 3",
    "taken": "from truthkit.evaluation.tasks.pope import POPE",
    "odd": "from truthkit.evaluation import Benchmark\n"
    "def task(data, *, size: list[int] = ()):\n    pass\n"
    "ODD = Benchmark('odd', 'Odd', task)",
    "named": "from truthkit.evaluation import Benchmark\ndef task(data):\n    pass\n"
    "NAMED = Benchmark('A b', 'Odd', task)",
}


def test_broken_ones_are_named_and_left_out(tmp_path: Path) -> None:
    """In a process of its own, the help of both commands and a task's beside the warnings."""
    for name, (entry, _) in BROKEN.items():
        about = tmp_path / f"{name}_quiz-0.1.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-quiz\nVersion: 0.1\n")
        (about / "entry_points.txt").write_text(f"[truthkit.tasks]\n{name} = {entry}\n")
        if name in SOURCES:
            (tmp_path / f"{name}.py").write_text(SOURCES[name])
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from truthkit.cli import main; "
    code += "sys.exit(main(['--help']) or main(['eval', '--help']) or main(['score', 'pope', '--help']))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "\n  pope\n" in shown.stdout
    assert shown.stderr.count("left out") == len(BROKEN)
    for name, (_, reason) in BROKEN.items():
        (line,) = (one for one in shown.stderr.splitlines() if f"plug-in '{name}' (package {name}-quiz) left" in one)
        assert reason in line


def test_an_option_that_eval_has_is_left_out_with_a_warning(
    plugged: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., str]
) -> None:
    from dataclasses import replace

    def task(data: Path, *, seed: int = 0) -> Any:
        """Nothing.

        Args:
            data: nothing
            seed: taken
        """

    odd = replace(builtin()["factor"], name="odd", task=task)
    monkeypatch.setattr("truthkit.cli.task_options.benchmarks", lambda: {**builtin(), "odd": odd})
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        command("eval", "--help")
    assert [str(one.message) for one in found] == [
        "an option of odd left out: argument --seed: conflicting option string: --seed"
    ]
