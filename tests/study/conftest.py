"""A tiny model on disk, and small data of two benchmarks."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.models.folders import byte_tokenizer, text_folder

STUDY = """\
name = "Tiny"
margin = 0.05
resamples = 500

[[model]]
id = "tiny"
model = "{model}"

[[task]]
task = "memotrap"
data = "${{DATA}}/traps.csv"
development = 0.4

[[task]]
task = "open-ended"
data = "${{DATA}}/prompts.txt"
options = {{ scorer = "none" }}
limit = 6
development_limit = 3
max_new_tokens = 6

[[method]]
decoder = "cad"
grid = {{ alpha = [0.5, 2] }}
tasks = ["memotrap"]

[[method]]
decoder = "dola:layers=0+1"
tasks = ["open-ended"]

[[method]]
decoder = "adacad"
tasks = ["memotrap"]
"""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny one that reads bytes."""
    folder = tmp_path_factory.mktemp("study") / "model"
    text_folder(folder)
    byte_tokenizer(eos_token="</s>", pad_token="<pad>").save_pretrained(folder)
    return str(folder)


@pytest.fixture
def study(model: str, tmp_path: Path) -> Path:
    """A study's file, beside its data."""
    write_traps(tmp_path / "traps.csv", range(24))
    (tmp_path / "prompts.txt").write_text("".join(f"Once upon {n} times\n" for n in range(24)))
    path = tmp_path / "study.toml"
    path.write_text(STUDY.format(model=model))
    return path


def write_traps(path: Path, numbers: range) -> None:
    """MemoTrap's form, a proverb for each number."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "classes", "answer_index"])
        for n in numbers:
            writer.writerow([f"Write a quote that ends in the word w{n}: No {n} is", f"[' w{n}.', ' v{n}.']", 0])
