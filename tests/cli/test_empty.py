"""Nothing where something should be, and a folder where a file should be: one line that says which. Oracle: by hand."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from truthkit import cli

EMPTY = "is empty; give it a value"
CASES: dict[tuple[str, ...], str] = {
    ("check", ""): "the claim is empty; pass a sentence to check.",
    ("check", " \t"): "the claim is empty; pass a sentence to check.",
    ("check",): 'there is no claim; pass one in quotes, a file with --file, or "-" for standard input.',
    ("check", "-"): "standard input holds no claim; write one per line.",
    ("check", "--file", ""): f"--file {EMPTY}, or leave it out.",
    ("check", "--file", "nothing.txt"): "the claim file 'nothing.txt' cannot be read: No such file or directory.",
    ("check", "--file", "folder"): "folder is a folder; expected a file.",
    ("check", "--file", "empty.txt"): "empty.txt holds no texts; write one per line.",
    ("check", "a", "--evidence", " "): "--evidence is empty; pass what is known, or leave it out.",
    ("check", "a", "--labels", ""): f"--labels {EMPTY}, or leave it out.",
    ("check", "a", "--style", ""): f"--style {EMPTY}, or leave it out.",
    ("check", "a", "--style", "folder"): "the vector is 'folder', which is a folder; expected a file.",
    ("generate", ""): "the prompt is empty; pass a question or the beginning of a text.",
    ("generate", "a", "--model", " "): f"--model {EMPTY}, or leave it out.",
    ("generate", "a", "--decoder", ""): f"--decoder {EMPTY}, or leave it out.",
    ("generate", "a", "--amateur", ""): f"--amateur {EMPTY}, or leave it out.",
    ("generate", "a", "--steer="): f"--steer {EMPTY}, or leave it out.",
    ("generate", "a", "--context", ""): "--context is empty; pass the passage.",
    ("detect", ""): f"FILE {EMPTY}.",
    ("detect", "folder"): "FILE is 'folder', which is a folder; expected a file.",
    ("detect", "--prompt", " "): "--prompt: the prompt is empty; pass a question or the beginning of a text.",
    ("extract", "folder", "--out", "v.safetensors"): "pairs='folder' is a folder; expected a file.",
    ("vector", "show", "folder"): "the vector is 'folder', which is a folder; expected a file.",
    ("eval", "pope", "--data", "", "--out", "x"): f"--data {EMPTY}, or leave it out.",
    ("compare", "", ""): f"A {EMPTY}.",
}


def test_one_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.txt").write_text("")
    for argv, said in CASES.items():
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        assert cli.main(argv) == cli.EXIT_BAD_ARGUMENTS, argv
        assert capsys.readouterr().err == f"truthkit: error: {said}\n", argv
