"""A real effect on real questions: the direction of true answers carries over to questions it has never seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from truthkit.steering import Pair
from truthkit.steering.extraction.encoding import encode_pairs
from truthkit.steering.extraction.select import divergences, preference


def pairs_of(questions: list[dict[str, Any]]) -> list[Pair]:
    """The best true answer of each question beside its first false one."""
    pairs = []
    for question in questions:
        answers = question["mc1_targets"]
        true, false = (next(a for a, label in answers.items() if label == wanted) for wanted in (1, 0))
        pairs.append(Pair(f" {true}", f" {false}", prompt=f"Q: {question['question']}\nA:"))
    return pairs


@pytest.mark.slow
def test_true_answers_gain_on_new_questions(smollm2: Any, shared_data: Path) -> None:
    model, tokenizer = smollm2
    questions = json.loads((shared_data / "data" / "truthfulqa" / "v0" / "mc_task.json").read_text())
    vector = tk.extract(model, tokenizer, pairs_of(questions[:40]), layers=[16], held_out=0)
    new = encode_pairs(pairs_of(questions[400:416]), tokenizer)
    everything = list(range(len(new.groups)))
    before = preference(model, new, everything)
    with vector.steer(model, strength=1.5):
        after = preference(model, new, everything)
    with vector.steer(model, strength=-1.5):
        reversed_ = preference(model, new, everything)
    assert reversed_ < before < after
    (moved,) = divergences(model, tokenizer, vector, ["The train leaves at nine."], layer=16, strengths=[1.5])
    assert moved < 0.5
