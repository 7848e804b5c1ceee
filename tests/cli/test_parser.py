"""What is typed is checked before anything heavy is imported, and help says what is taken where nothing is typed."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from tests.conftest import ROOT
from truthkit import cli
from truthkit.cli.files import readable, writable
from truthkit.cli.parser import Parser, at_least
from truthkit.cli.threads import spin_briefly

MISTAKES: tuple[tuple[int, str, tuple[str, ...]], ...] = (
    (2, "did you mean 'dola'?", ("generate", "Hi", "--decoder", "dolla")),
    (2, "beta is 2.0", ("generate", "Hi", "--decoder", "dola:beta=2")),
    (2, "did you mean 'beta'?", ("generate", "Hi", "--decoder", "dola:betta=1")),
    (2, "'missing.txt' cannot be read", ("generate", "--file", "missing.txt")),
    (2, "no image file 'missing.png'", ("generate", "Hi", "--decoder", "ritual", "--image", "missing.png")),
    (2, "has the strength 'x'", ("generate", "Hi", "--steer", "v.safetensors:x")),
    (2, "did you mean 'mode'?", ("generate", "Hi", "--steer", "v.safetensors:1,modes=add")),
    (1, "'v.safetensors': there is no such file", ("generate", "Hi", "--steer", "v.safetensors:1")),
    (2, "max_new_tokens is 0", ("generate", "Hi", "--max-new-tokens", "0")),
    (2, "beams change rows", ("generate", "Hi", "--explain", "--num-beams", "2")),
    (2, "dtype='float23'", ("generate", "Hi", "--dtype", "float23")),
    (1, "there is nothing at", ("generate", "Hi", "--model", "./nowhere")),
    (1, "there is no such folder", ("generate", "Hi", "--adapter", "./nowhere")),
    (1, "there is nothing at", ("generate", "Hi", "--decoder", "icd", "--amateur", "./nowhere")),
    (2, "--port is '80000'; expected 0 to 65535", ("app", "--port", "80000")),
    (1, "there is nothing at", ("app", "--amateur", "./nowhere")),
    (2, "did you mean 'generate'?", ("generat", "Hi")),
    (2, "did you mean --decoder?", ("generate", "Hi", "--decodr", "dola")),
    (2, "did you mean --out?", ("extract", "pairs.jsonl", "--uot", "v.safetensors")),
    (1, "there is no such file", ("extract", "missing.jsonl", "--out", "v.safetensors")),
    (2, "in a folder that exists", ("extract", "pairs.jsonl", "--out", "no/v.safetensors")),
    (2, "positions contains 'lats'", ("extract", "pairs.jsonl", "--out", "v.safetensors", "--positions", "lats")),
    (2, "did you mean 'mean'?", ("extract", "pairs.jsonl", "--out", "v.safetensors", "--method", "meen")),
    (2, "no 'l3'; it takes l2", ("extract", "pairs.jsonl", "--out", "v.safetensors", "--method", "logistic:l3=1")),
    (2, "--held-out is 1.5", ("extract", "pairs.jsonl", "--out", "v.safetensors", "--held-out", "1.5")),
    (2, "(did you mean 'block'?)", ("extract", "pairs.jsonl", "--out", "v.safetensors", "--site", "blok")),
    (1, "'s.safetensors': there is no such file", ("check", "Hi", "--style", "s.safetensors")),
    (2, "has options", ("check", "Hi", "--style", "s.safetensors:1,mode=add")),
    (2, "layers is 'a'", ("isotropy", "--layers", "a")),
    (2, "--plot is 'no/plot.png'", ("isotropy", "--plot", "no/plot.png")),
    (1, "there is no such file", ("train", "amateur", "missing.json", "--out", "adapter")),
    (2, "rank is 0", ("train", "amateur", "pairs.jsonl", "--rank", "0", "--out", "adapter")),
    (2, "in a folder that exists", ("train", "reflex", "pairs.jsonl", "--out", "no/adapter")),
    (1, "there is no such file", ("vector", "show", "missing.safetensors")),
    (2, "ends in '.txt'", ("vector", "show", "vector.txt")),
    (2, "did you mean 'plot'?", ("vector", "plt", "v.safetensors")),
    (2, "in a folder that exists", ("transforms", "--image", "a.png", "--out", "no/sheet.png")),
)  # fmt: skip


def test_mistakes_are_found_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"positive": "a b", "negative": "c d"}))
    code = f"""
import sys
from truthkit.cli import main
for argv in {[argv for _, _, argv in MISTAKES]!r}:
    print(main(list(argv)), *{{"torch", "transformers"}} & set(sys.modules))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    said = result.stderr.splitlines()
    assert len(said) == len(MISTAKES)
    for (code_expected, message, argv), code_found, line in zip(
        MISTAKES, result.stdout.splitlines(), said, strict=True
    ):
        assert (argv, code_found) == (argv, str(code_expected))
        assert line.startswith("truthkit: error: ")
        assert message in line, (argv, line)


@pytest.mark.parametrize(
    ("argv", "seconds"),
    [(("generate", "Hi", "--decoder", "dola:beta=2"), 1.0), (("--help",), 0.5), (("generate", "--help"), 0.5)],
)
def test_a_mistake_or_a_question_costs_little(argv: tuple[str, ...], seconds: float) -> None:
    """CPU time, the best of three: other work on the machine makes that longer too."""
    costs = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "truthkit.cli", *argv], cwd=ROOT, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(costs) < seconds


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from parsers(one)


def test_help_shows_every_default() -> None:
    shown = 0
    for parser in parsers(cli.build_parser()):
        text = " ".join(parser.format_help().split())
        for action in parser._actions:
            if action.option_strings and action.default not in (None, "", argparse.SUPPRESS, []):
                if isinstance(action.default, bool):
                    continue
                said = text.partition(f"{action.option_strings[-1]} ")[2]
                assert f"(default: {action.default}" in said or "(default" in str(action.help), (parser.prog, action)
                shown += 1
    assert shown > 30


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--number", "x"], "--number is 'x'; expected an integer"),
        (["--number=1.5"], "--number is '1.5'; expected an integer"),
        (["--share", "x"], "--share is 'x'; expected a number"),
        (["--count", "0"], "--count is 0; expected at least 1"),
        (["--count", "x"], "--count is 'x'; expected an integer"),
        (["--form", "lift"], "--form is 'lift' (did you mean 'list'?); expected list or table"),
        (["--numbr", "1"], "tool has no option --numbr (did you mean --number?)"),
        (["--xyz"], "tool has no option --xyz; `tool --help` lists them"),
        (["--number"], "--number: expected one argument; `tool --help` lists what there is"),
        (["extra"], "unrecognized arguments: extra"),
    ],
)
def test_errors_name_the_argument_and_the_way_out(argv: list[str], message: str) -> None:
    parser = Parser(prog="tool")
    parser.add_argument("--number", type=int, default=0)
    parser.add_argument("--share", type=float)
    parser.add_argument("--count", type=at_least(1))
    parser.add_argument("--form", choices=("list", "table"))
    with pytest.raises(tk.ArgumentError) as caught:
        parser.parse_args(argv)
    assert message in str(caught.value)


def test_what_comes_after_two_dashes_is_no_option() -> None:
    parser = Parser(prog="tool")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--number", type=int)
    assert parser.parse_args(["--num", "3", "--", "--other"]).words == ["--other"]
    assert parser.parse_args(["--number=-3"]).number == -3


def test_files(tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / "a.txt"
    with pytest.raises(tk.NotAvailableError, match=r"--file is '.*a\.txt': there is no such file"):
        readable(file, "--file")
    file.write_text("x")
    assert readable(str(file), "--file") == file == writable(file, "--out", [".txt"])
    assert writable(tmp_path / "b", "--out") == tmp_path / "b"
    with pytest.raises(tk.ArgumentError, match="which is a folder"):
        readable(tmp_path, "--file")
    with pytest.raises(tk.ArgumentError, match=r"expected \.png or \.svg in a folder that exists"):
        writable(file, "--out", [".png", ".svg"])
    monkeypatch.setattr("os.access", lambda *_arguments: False)
    with pytest.raises(tk.NotAvailableError, match="may not be read"):
        readable(file, "--file")
    with pytest.raises(tk.ArgumentError, match="may not be written"):
        writable(file, "--out")


def test_threads_spin_briefly_unless_somebody_says_otherwise() -> None:
    for given, loaded, expected in (
        ({}, (), {"GOMP_SPINCOUNT": "10000"}),
        ({}, ("torch",), {}),
        ({"OMP_WAIT_POLICY": "active"}, (), {"OMP_WAIT_POLICY": "active"}),
        ({"GOMP_SPINCOUNT": "1"}, (), {"GOMP_SPINCOUNT": "1"}),
    ):
        spin_briefly(given, loaded)
        assert given == expected
