"""Shell completion. Oracle: what bash completes with the script, and the syntax checks of the shells that are here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from truthkit import cli

_ASK = """
source truthkit.bash
ask() {
  COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=()
  _shtab_truthkit "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
  echo "${COMPREPLY[@]}"
}
"""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    script = tmp_path / f"truthkit.{shell}"
    script.write_text(capsys.readouterr().out, encoding="utf-8")
    for name in (*cli.COMMANDS, "max-new-tokens", "scene-vlm", "truthfulqa", "contrastive_search"):
        assert name in script.read_text(encoding="utf-8")
    if shutil.which(shell):
        subprocess.run([shell, "-n", script], check=True, timeout=60)
    if shell == "bash" and shutil.which("bash"):
        (tmp_path / "claims.txt").write_text("")
        cases = {
            "ge": ["generate"],
            "generate --dec": ["--decoder"],
            "generate --decoder do": ["dola"],
            "generate --decoder gre": ["greedy"],
            "check --model s": ["scene-vlm", "smollm2"],
            "check --file cl": ["claims.txt"],
            "eval po": ["pope"],
            "vector sh": ["show"],
            "completion f": ["fish"],
        }
        asked = _ASK + "".join(f"ask truthkit {words}\n" for words in cases)
        out = subprocess.run(
            ["bash", "-c", asked], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60
        )
        assert [sorted(line.split()) for line in out.stdout.splitlines()] == list(cases.values())


def test_another_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "basch"]) == 2
    assert capsys.readouterr().err == (
        "truthkit: error: SHELL is 'basch' (did you mean 'bash'?); expected bash, zsh or fish.\n"
    )
