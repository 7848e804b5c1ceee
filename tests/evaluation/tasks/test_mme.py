"""MME, against the official rules written out and totals published for a real model."""

from __future__ import annotations

from pathlib import Path

import pytest

import truthkit as tk
from truthkit.evaluation.tasks.mme import scorer as mme
from truthkit.evaluation.tasks.mme.scorer import Question


@pytest.mark.parametrize(
    ("answer", "guess"),
    [
        ("yes", "yes"),
        ("No", "no"),
        ("Yes, it is", "yes"),
        ("not at all", "no"),
        (" no", "no"),
        ("a no", "no"),
        ("I do not", None),
        ("", None),
        ("it is yes", None),
        ("\nyes", "yes"),
        ("yno", "no"),
    ],
)
def test_parse(answer: str, guess: str | None) -> None:
    assert mme.parse(answer) == guess


def test_scores_by_hand() -> None:
    asked = [Question("color", str(i // 2), f"q{i}", "yes" if i % 2 else "no") for i in range(6)]
    asked += [Question("text_translation", "1", f"q{i}", "no") for i in range(2)]
    answers = ["no", "yes", "no", "no", "maybe", "yes", "No.", "no"]
    # color: 4 of 6 right, 1 of 3 images with both; text_translation: 2 of 2 and 1 of 1.
    found = mme.score(asked, answers)
    color = 100 * 4 / 6 + 100 / 3
    assert found.metrics == pytest.approx(
        {"perception": color, "cognition": 200, "color": color, "text_translation": 200}, abs=1e-12
    )
    assert found.config["unparsed"] == 1
    low, high = found.intervals(resamples=500)["perception"]
    assert 0 <= low < color < high <= 200


def test_real_predictions(shared_data: Path) -> None:
    """LaVIN's predictions. Oracle: the steps of eval_tool/calculation.py, line pairs and all."""
    folder = shared_data / "data/mme"
    expected = {}
    for name in mme.SUBTASKS:
        text = (folder / f"predictions_lavin/{name}.txt").read_text()
        lines = [line.lower().split("\t") for line in text.splitlines()]
        hits = [
            label == (answer.strip() if answer.strip() in ("yes", "no") else _prefix(answer[:4]))
            for _, _, label, answer in lines
        ]
        both = [hits[i] and hits[i + 1] for i in range(0, len(hits), 2)]
        expected[name] = 100 * sum(hits) / len(hits) + 100 * sum(both) / len(both)
    answered = mme.read_answers(folder / "predictions_lavin")
    asked = [question for question, _ in answered]
    mme.check_complete(mme.read_questions(folder / "questions"), asked)
    found = mme.score(asked, [answer for _, answer in answered]).metrics
    assert {name: found[name] for name in mme.SUBTASKS} == pytest.approx(expected, abs=1e-9)
    # The benchmark's leaderboard has 963.60 and 249.64.
    assert found["perception"] == pytest.approx(963.6114, abs=1e-4)
    assert found["cognition"] == pytest.approx(249.6429, abs=1e-4)


def _prefix(start: str) -> str:
    return "yes" if "yes" in start else "no" if "no" in start else "other"


def write(folder: Path, text: str) -> Path:
    (folder / "color.txt").write_text(text)
    return folder


def test_answers_may_have_line_breaks_and_tabs(tmp_path: Path) -> None:
    text = "a.jpg\tIs it red?\tYes\tYes\tindeed\nIt is red.\n\na.jpg\tIs it blue?\tNo\tno\r\n"
    found = mme.read_answers(write(tmp_path, text))
    assert [answer for _, answer in found] == ["Yes\tindeed\nIt is red.", "no"]
    assert mme.score([q for q, _ in found], [a for _, a in found]).metrics["color"] == 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tb\tYes\n", "color.txt, line 1: 3 fields between tabs; expected image, question, label, answer"),
        ("a\tb\tYes\tyes\na\tb\tc\tno\n", "color.txt, line 2: label is 'c'; expected yes or no"),
        ("no tabs\n", "line 1: 1 fields"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        mme.read_answers(write(tmp_path, text))


def test_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(tk.NotAvailableError, match="no folder"):
        mme.read_answers(tmp_path / "none")
    with pytest.raises(tk.NotAvailableError, match=r"none of MME's files: existence\.txt"):
        mme.read_answers(tmp_path)


def test_an_image_has_two_questions() -> None:
    with pytest.raises(tk.ArgumentError, match="color: image a has 1 questions"):
        mme.score([Question("color", "a", "b", "yes")], ["yes"])


def test_completeness() -> None:
    asked = [Question("color", "a", f"q{i}", "yes", f"line {i}") for i in range(2)]
    mme.check_complete(asked, asked[::-1])
    with pytest.raises(tk.ArgumentError, match="1 of 2 questions have no answer"):
        mme.check_complete(asked, asked[:1])
    with pytest.raises(tk.ArgumentError, match="line 7: this question, with this label"):
        mme.check_complete(asked, [*asked, Question("color", "a", "q0", "no", "line 7")])


def test_reads_json_lines(shared_data: Path) -> None:
    asked = mme.read_questions(shared_data / "data/coco256/mini_mme.jsonl")
    assert len(asked) == 30
    assert asked[1].label == "no"
