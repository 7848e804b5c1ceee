"""`truthkit score`: what it prints, and one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.report.cases import pope_task, truthfulqa_task, write_run
from truthkit import cli
from truthkit.evaluation.tasks.pope import scorer as pope


def write(path: Path, *records: object) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    questions = [
        {"question_id": i, "image": f"{i // 2}.jpg", "text": f"Is there a {i}?", "label": "yes" if i % 2 else "no"}
        for i in range(1, 9)
    ]
    answers = [{"question_id": i, "text": "Yes" if i % 3 else "No, none.", "category": None} for i in range(1, 9)]
    data = write(tmp_path / "my_pope_popular.json", *questions)
    return ["score", "pope", write(tmp_path / "answers.jsonl", *answers), "--data", data]


def test_json(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*files, "--parser", "opera", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    # Labels ynynynyn; "No" to 3 and 6: right are 1, 5, 7 (yes) and 6 (no).
    assert found["metrics"] == {"accuracy": 0.5, "precision": 0.5, "recall": 0.75, "f1": 0.6, "yes_ratio": 0.75}
    assert found["config"]["parser"] == "opera"
    low, high = found["intervals"]["accuracy"]
    assert 0 <= low < 0.5 < high <= 1
    assert set(found["intervals"]) == set(found["metrics"])
    assert "categories" not in found


def test_table(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(files) == 0
    out = capsys.readouterr().out
    assert out.startswith("task pope, parser official, questions 8\n")
    assert "95 % interval" in out
    assert "  recall         75.00   [" in out


def test_the_seed_is_used_and_named(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for _ in range(2):
        assert cli.main([*files, "--seed", "3", "--json"]) == 0
        shown.append(json.loads(capsys.readouterr().out))
    assert shown[0] == shown[1]
    assert shown[0]["config"]["seed"] == 3
    assert cli.main([*files, "--seed", "-1"]) == 2
    assert "--seed is -1; expected 0 or more" in capsys.readouterr().err


def test_categories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    answers = []
    for name in pope.STRATEGIES:
        write(data / f"x_pope_{name}.json", {"question_id": 1, "image": "a", "text": "b", "label": "yes"})
        answers.append({"question_id": 1, "answer": "no" if name == "popular" else "yes", "category": name})
    arguments = ["score", "pope", write(tmp_path / "all.jsonl", *answers), "--data", str(data)]
    assert cli.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"]["accuracy"] == pytest.approx(2 / 3)
    assert {name: part["metrics"]["accuracy"] for name, part in found["categories"].items()} == {
        "random": 1,
        "popular": 0,
        "adversarial": 1,
    }
    assert cli.main(arguments) == 0
    assert "\n  adversarial      100.00" in capsys.readouterr().out


def test_chair(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nltk")
    folder = shared_data / "data/chair"
    arguments = ["score", "chair", str(folder / "captions/opera_llava-1.5.greedy.jsonl"), "--json", "--data"]
    given = [str(folder), "--lemmatizer", "pattern"]
    assert cli.main([*arguments, *given]) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    assert {name: round(value, 6) for name, value in found.items()} == {
        "chair_s": 0.45,
        "chair_i": 0.127842,
        "recall": 0.7979,
    }


def test_mme(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shared_data / "data/mme"
    assert cli.main(["score", "mme", str(folder / "predictions_lavin"), "--data", str(folder / "questions")]) == 0
    out = capsys.readouterr().out
    assert "perception                963.61   [" in out


def test_truthfulqa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "TruthfulQA.csv").write_text(
        "Question,Best Answer,Correct Answers,Incorrect Answers\nIs it?,Yes,Yes; Maybe,No; Never.\n"
    )
    scores = {"Yes.": -1, "Maybe.": -3, "No.": -2, "Never.": -9}
    path = write(tmp_path / "a.jsonl", {"question": "Is it?", "log_probs": scores})
    data = ["--data", str(tmp_path), "--protocol", "authors", "--json"]
    assert cli.main(["score", "truthfulqa", path, *data]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"]["mc1"] == 1
    assert found["metrics"]["mc3"] == 0.5
    pytest.importorskip("sacrebleu")
    path = write(tmp_path / "b.jsonl", {"question": "Is it?", "answer": "Maybe."})
    assert cli.main(["score", "truthfulqa", path, "--data", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"]["rouge1_acc"] == 1
    assert found["config"]["protocol"] == "generation"


def test_a_run_is_scored_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With another parser or protocol, for some of the data's questions. Oracle: the scorers by themselves."""
    task = pope_task(tmp_path / "pope")
    said = ["Yes.", "I don't see one."] * 6
    run = str(write_run(task, tmp_path / "run", said, limit=7))
    for options, parser in (([], "official"), (["--parser", "opera"], "opera"), (["--parser", "strict"], "strict")):
        assert cli.main(["score", "pope", run, *options, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["metrics"] == pope.score(pope.read_questions(task.data[0])[:7], said[:7], parser=parser).metrics
        assert found["config"]["parser"] == parser
    truthful = truthfulqa_task(tmp_path / "qa")
    run, data = str(write_run(truthful, tmp_path / "qa-run", [[-1.0, -2.0], [-2.0, None]] * 2)), str(tmp_path / "qa")
    assert cli.main(["score", "truthfulqa", run, "--data", data, "--protocol", "authors", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["metrics"]) == {"mc1", "mc2", "mc3"}
    for argv, message in (
        (["score", "truthfulqa", run], "--data is missing"),
        (["score", "pope", run], "is a run of truthfulqa"),
        (["score", "pope", str(tmp_path / "pope" / "q.json")], "--data is missing: truthkit score pope"),
    ):
        assert cli.main(argv) == 2
        assert message in capsys.readouterr().err


WRONG: list[tuple[str, Any, int, str]] = [
    ("answers", None, 1, "there is no such file or folder"),
    ("answers", '{"question_id": 1, "text": "Yes"}\n{"question', 2, "line 2: not JSON"),
    ("answers", '{"question_id": 1, "text": "Yes"}\n', 2, "7 of 8 questions have no answer"),
    ("answers", "\n", 2, "has no records"),
    ("data", "[]", 2, "has no records"),
    ("data", '[{"question_id": 1, "image": "a", "text": "b", "label": "?"}]', 2, "record 1: label is '?'"),
]


@pytest.mark.parametrize(("which", "content", "code", "message"), WRONG)
def test_errors_are_one_line(
    files: list[str], capsys: pytest.CaptureFixture[str], which: str, content: str | None, code: int, message: str
) -> None:
    path = Path(files[2] if which == "answers" else files[4])
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert cli.main(files) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("truthkit: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_chair_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = write(tmp_path / "a.jsonl", {"image_id": 1, "caption": "a dog"})
    assert cli.main(["score", "chair", captions, "--data", str(tmp_path / "none")]) == 1
    assert "none': there is no such file or folder" in capsys.readouterr().err
    assert cli.main(["score", "chair", captions, "--data", str(tmp_path)]) == 2
    assert "--synonyms: no file" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["score"], ["score", "pope"], ["score", "vqa"], ["score", "pope", "x"]])
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    assert "truthkit score" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["pope", "chair", "mme", "truthfulqa"])
def test_help_teaches(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["score", task, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"example:\n  truthkit score {task} " in out
    assert max(map(len, out.splitlines())) <= 120
