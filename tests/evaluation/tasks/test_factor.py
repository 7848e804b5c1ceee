"""FACTOR, against the two scripts' rules written out."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import truthkit as tk
from truthkit.evaluation.tasks.factor import scorer as factor
from truthkit.evaluation.tasks.factor.scorer import Question


@pytest.mark.parametrize(("name", "count"), [("news", 1036), ("expert", 236)])
def test_reads_the_real_files(shared_data: Path, name: str, count: int) -> None:
    path = shared_data / f"data/factor/{name}_factor.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    official, dola = factor.read_questions(path), factor.read_questions(path, form="dola")
    assert len(official) == len(dola) == len(rows) == count
    names = ("completion", "contradiction_0", "contradiction_1", "contradiction_2")
    for row, one, other in zip(rows, official, dola, strict=True):
        before = row["turncated_prefixes"]
        stripped = [row[name].lstrip(" ") for name in names]
        assert [one.prefix + completion for completion in one.completions] == [before + text for text in stripped]
        assert one.completions[0] == (" " if before.endswith(" ") else "") + stripped[0]
        assert other.prefix == row["full_prefix" if name == "news" else "turncated_prefixes"]
        assert other.completions == tuple(f" {row[name]}" for name in names)


def test_means_against_sums_and_ties() -> None:
    questions = [Question("a", ("w", "x", "y", "z"))] * 3
    log_probs = [[-10, -6, -20, -20], [-5, -5, -9, -9], [-8, -9, -10, -11]]
    counts = [[5, 2, 4, 4], [2, 2, 2, 2], [4, 9, 4, 4]]
    expected = {"official": [True, False, False], "dola": [False, False, True]}
    for form, right in expected.items():
        found = factor.score(questions, log_probs, counts, form=form)
        assert [item["correct"] for item in found.items] == right
        assert found.metrics == {"accuracy": pytest.approx(1 / 3)}
    means = -np.array(log_probs) / np.array(counts)
    assert (means[:, 0] < means[:, 1:].min(axis=1)).tolist() == expected["official"]


def test_excluded_completions_are_never_right() -> None:
    questions = [Question("a", ("w", "x"))] * 3
    found = factor.score(questions, [[None, -np.inf], [-np.inf, -1], [-1, -np.inf]], [[1, 1]] * 3)
    assert [item["unscored"] for item in found.items] == [True, False, False]
    assert found.config["unscored"] == 1
    assert [item["correct"] for item in found.items] == [False, False, True]


def test_refuses() -> None:
    with pytest.raises(tk.ArgumentError, match="form is 'sum'"):
        factor.score([], [], [], form="sum")
    with pytest.raises(tk.ArgumentError, match=r"token_counts \(1, 2\); expected \(1, completions\)"):
        factor.score([Question("a", ("b", "c"))], [[1, 2, 3]], [[1, 2]])
