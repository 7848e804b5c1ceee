"""MMVP on drawn scenes in the released form: pairs, parsers, and bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from tests.each import each
from truthkit import cli
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.report.rescore import rescore
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.runs import run
from truthkit.evaluation.tasks.mmvp import MMVP, scorer
from truthkit.evaluation.tasks.mmvp.task import score_files
from truthkit.scenes.questions import held_out
from truthkit.scenes.render import render

HEADS = ("Index", "Question", "Options", "Correct Answer")
ROWS = [
    (1, "Is there a dog in the image?", "(a) Yes (b) No", "(a)"),
    (2, "Is there a dog in the image?", "(a) Yes (b) No", "(b)"),
    (3, "Is the door open, or closed?", "(a) Open (b) Closed", "(b)"),
    (4, "Is the door open, or closed?", "(a) Open (b) Closed", "(A)"),
]


def benchmark(folder: Path, rows: Any = ROWS, heads: Any = HEADS) -> Path:
    with (folder / "Questions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([heads, *rows])
    pictures = folder / "MMVP Images"
    pictures.mkdir(exist_ok=True)
    for number, scene in enumerate(held_out(4), 1):
        render(scene).save(pictures / f"{number}.jpg")
    return folder


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images by their index; whole pairs with a limit; resumed; scored again with another parser, and from a file."""
    data = benchmark(tmp_path)
    task = MMVP.task(data, suffix=" Say a or b.")
    assert task.items[2].prompt == "Is the door open, or closed? (a) Open (b) Closed Say a or b."
    assert [Path(item.images[0]).name for item in task.items] == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert {len(task.some(1, seed=seed)) for seed in range(5)} == {2}
    model, processor = tk.load("scene-vlm")
    asking = Asking(model, processor, parse_spec("greedy"), {}, max_new_tokens=6)
    whole = run(task, asking, tmp_path / "whole", model_name="scenes", units=MMVP.units)
    run(task, asking, tmp_path / "parts", model_name="scenes")
    records = tmp_path / "parts/records.jsonl"
    records.write_text(records.read_text().splitlines()[0] + "\n")
    assert run(task, asking, tmp_path / "parts", model_name="scenes")["metrics"] == whole["metrics"]
    lines = [json.loads(line) for line in (tmp_path / "whole/items.jsonl").read_text().splitlines()]
    assert rescore(lines, whole["config"]).metrics == whole["metrics"]
    answers = tmp_path / "a.jsonl"
    answered = [{"question_id": one["id"], "answer": "(a)", "response": one["answer"]} for one in lines[::-1]]
    answers.write_text("".join(json.dumps(one) + "\n" for one in answered))
    assert score_files(answers, data).metrics == whole["metrics"]
    assert cli.main(["score", "mmvp", str(tmp_path / "whole"), "--parser", "strict", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["parser"] == "strict"
    out = tmp_path / "runs"
    command = ["eval", "mmvp", "--data", str(data), "--model", "scene-vlm", "--decoder", "vcd", "--controls"]
    assert cli.main([*command, "--max-new-tokens", "4", "--out", str(out)]) == 0
    assert cli.main(["report", str(out), "--out", str(tmp_path / "r.md")]) == 0
    assert "both of a pair right" in (tmp_path / "r.md").read_text()


def test_pairs() -> None:
    questions = [scorer.Question(i, "Is it?", "(a) Open (b) Closed", "ab"[i % 2]) for i in range(1, 7)]
    answers = ["(b)", "(a)", "(b)", "(b)", "what", "(a)"]
    score = scorer.score(questions, answers)
    assert score.metrics == {"pair_accuracy": 1 / 3, "accuracy": 4 / 6, "a_ratio": 2 / 6}
    assert (score.sizes["pair_accuracy"], score.config["unparsed"]) == (3, 1)
    half = scorer.score(questions[:1], answers[:1]).metrics
    assert half["accuracy"] == 1
    assert half["pair_accuracy"] != half["pair_accuracy"]


@each(
    ("answer", "letter", "strict"),
    [
        ("(a)", "a", "a"),
        ("(B)", "b", "b"),
        ("b", "b", "b"),
        ("A.", "a", "a"),
        ("b) Closed", "b", None),
        ("The answer is (b), closed.", "b", None),
        ("(a) or (b)", None, None),
        ("It is open.", "a", None),
        ("Closed", "b", None),
        ("A door that is closed", "b", None),
        ("It is neither open nor closed.", None, None),
        ("unopened", None, None),
        ("", None, None),
    ],
)
def test_parsers(answer: str, letter: Any, strict: Any) -> None:
    options = "(a) Open (b) Closed"
    assert [scorer.parse(answer, options, parser=parser) for parser in ("letter", "strict")] == [letter, strict]


def test_options_that_are_written_otherwise() -> None:
    assert scorer.parse("(b)", "open/closed") == "b"
    assert scorer.parse("open", "open/closed") is None
    assert scorer.parse("In the left hand", "(A) the right hand; (B) the left hand") == "b"
    with pytest.raises(tk.ArgumentError, match="parser is 'gpt'; expected one of letter, strict"):
        scorer.parse("a", "", parser="gpt")


@each(
    ("rows", "message"),
    [
        (ROWS[:3], r"Questions.csv has 3 questions; expected pairs, and the last one is alone"),
        ([ROWS[1], ROWS[0]], "Questions.csv, line 2: 'Index' is '2'; expected 1, the questions in order"),
        ([(1, "Is it?", "(a) b (b) c", "(c)"), ROWS[1]], r"'Correct Answer' is '\(c\)'; expected '\(a\)'"),
        ([], "has no records"),
    ],
)
def test_wrong_data(rows: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        MMVP.task(benchmark(tmp_path, rows))


@each(
    ("answers", "message"),
    [
        ([{"answer": "a"}], "a.jsonl has 1 answers for 4 questions, and no 'question_id'"),
        ([{"question_id": 5, "response": "a"}], "question_id 5 is none of the 4 questions"),
        ([{"question_id": 1, "response": "a"}] * 2, "question_id 1 was answered before"),
        ([{"question_id": 1, "response": "a"}], "3 of 4 questions have no answer; the first is question_id 2"),
        ([{"question_id": 1}], "no 'answer' or 'text'"),
    ],
)
def test_wrong_answers(answers: Any, message: str, tmp_path: Path) -> None:
    data, path = benchmark(tmp_path), tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in answers))
    with pytest.raises(tk.ArgumentError, match=message):
        score_files(path, data)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(tk.NotAvailableError, match=r"Questions\.csv cannot be read"):
        MMVP.task(tmp_path)
    with pytest.raises(tk.ArgumentError, match="no 'Options'"):
        MMVP.task(benchmark(tmp_path, ROWS, ("Index", "Question", "Choices", "Correct Answer")))
    data = benchmark(tmp_path)
    (tmp_path / "MMVP Images/3.jpg").unlink()
    from truthkit.evaluation.tasks.images import _pictures

    _pictures.cache_clear()
    with pytest.raises(tk.NotAvailableError, match="has no image 3; pass the folder that holds it with --images"):
        MMVP.task(data)
