"""HaluEval's questions, against the authors' rule written out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from tests.each import each
from tests.evaluation.tasks.test_tasks import Tokenizer
from tests.tiny import tiny
from truthkit import cli
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.runs import run
from truthkit.evaluation.tasks import benchmarks
from truthkit.evaluation.tasks.halueval import scorer as halueval

RECORDS: list[dict[str, Any]] = [
    {"knowledge": f"K{i}.", "question": f"Q{i}?", "right_answer": "r", "hallucinated_answer": "h"} for i in range(3)
]


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@each(
    ("text", "judged"),
    [
        ("Yes", True),
        (" No.", False),
        ("No, it is right", False),
        ("Yes and No", None),
        ("yes", None),
        ("", None),
        ("failed!", None),
        ("Y.es", None),
        ("Nothing", False),
    ],
)
def test_parse_as_the_script(text: str, judged: bool | None) -> None:
    """Oracle: the script's own conditions, dots removed first; "Y.es" is the one text that they read otherwise."""
    said = text.replace(".", "")
    failed = ("Yes" in said and "No" in said) or ("Yes" not in said and "No" not in said)
    expected = None if failed else "Yes" in said
    assert halueval.parse(text) == judged
    assert expected == judged or text == "Y.es"


def test_scores_by_hand(tmp_path: Path) -> None:
    questions = halueval.read_questions(lines(tmp_path / "qa.json", *RECORDS))
    assert [(one.text, one.answer, one.hallucinated) for one in questions[:2]] == [
        ("Q0?", "r", False),
        ("Q0?", "h", True),
    ]
    found = halueval.score(questions, [False, True, True, True, None, None])
    assert found.metrics == pytest.approx({"accuracy": 1 / 2, "yes_ratio": 1 / 2, "pair_accuracy": 1 / 3})
    assert found.config["failed"] == 2
    assert found.sizes == {"accuracy": 6, "yes_ratio": 6, "pair_accuracy": 3}
    half = halueval.score(questions[:1], [False])
    assert half.metrics == {"accuracy": 1, "yes_ratio": 0}
    assert halueval.score([], []).metrics == {"accuracy": 0, "yes_ratio": 0}
    assert [halueval.by_likelihood(one) for one in ([-1, -2], [-2, -1], [-1, -1], [None, -9])] == [
        True,
        False,
        None,
        False,
    ]


def test_whole_questions_by_likelihood_and_written(tmp_path: Path) -> None:
    model, tokenizer = tiny("llama", max_position_embeddings=1024), Tokenizer()
    data = lines(tmp_path / "qa_data.json", *RECORDS)
    for options, decoder in (({"judged": "likelihood", "knowledge": True}, "cad"), ({}, "greedy")):
        task = benchmarks()["halueval"].task(data, **options)
        assert [item.context for item in task.items[:2]] == (["#Knowledge#: K0.\n"] * 2 if options else ["", ""])
        asking = Asking(model, tokenizer, parse_spec(decoder), {}, max_new_tokens=2, batch_size=2)
        summary = run(task, asking, tmp_path / decoder, model_name="toy", limit=1)
        items = [json.loads(line) for line in (tmp_path / decoder / "items.jsonl").read_text().splitlines()]
        assert len(items) == 2
        assert items[0]["question"] == items[1]["question"]
        for item in items:
            read = halueval.by_likelihood if options else halueval.parse
            said = {True: "yes", False: "no", None: None}[read(item["output"])]
            assert (item["prediction"], item["correct"]) == (said, said == item["label"])
        assert summary["n"]["pair_accuracy"] == 1


def test_the_real_files(shared_data: Path) -> None:
    task = benchmarks()["halueval"].task(shared_data / "data/halueval", knowledge=True)
    assert len(task.items) == 2 * 1000
    assert len({item.key for item in task.items}) == 2000


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = lines(tmp_path / "qa.json", *RECORDS)
    judged = [
        {"question": one["question"], "answer": answer, "ground_truth": truth, "judgement": "Yes"}
        for one in RECORDS
        for answer, truth in (("r", "No"), ("h", "Yes"))
    ]
    answers = lines(tmp_path / "a.jsonl", *judged[::-1])
    for more in (["--data", str(data)], []):
        assert cli.main(["score", "halueval", str(answers), "--json", *more]) == 0
        metrics = json.loads(capsys.readouterr().out)["metrics"]
        assert metrics == {"accuracy": 0.5, "yes_ratio": 1, "pair_accuracy": 0}
    lines(answers, *judged[:5])
    assert cli.main(["score", "halueval", str(answers), "--data", str(data)]) == 2
    assert "1 of 6 questions have no answer; the first is 'Q2?\\nh'" in capsys.readouterr().err
    lines(answers, {**judged[0], "ground_truth": "maybe"})
    assert cli.main(["score", "halueval", str(answers)]) == 2
    assert "'ground_truth' is 'maybe'; expected Yes or No" in capsys.readouterr().err
    argv = ["eval", "halueval", "--data", str(data), "--out", str(tmp_path / "run")]
    for more, message in (
        (["--chat", "--judged", "likelihood"], "--chat is for written judgements"),
        (["--judged", "said"], "--judged is 'said'; expected one of written, likelihood"),
        (
            ["--decoder", "cad"],
            "decoder cad compares prompts with and without their context, and item qa 1 right has none",
        ),
    ):
        assert cli.main([*argv, *more]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@each(
    ("record", "message"),
    [
        ({"question": "Q?", "right_answer": "r"}, "line 1: no 'hallucinated_answer'"),
        ({**RECORDS[0], "right_answer": " "}, "line 1: 'right_answer' is empty"),
        ({**RECORDS[0], "right_answer": "h"}, "line 1: the right answer is the hallucinated one, 'h'"),
    ],
)
def test_bad_lines(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    with pytest.raises(tk.ArgumentError) as raised:
        halueval.read_questions(lines(tmp_path / "qa.json", record))
    assert message in str(raised.value)


def test_refuses(tmp_path: Path) -> None:
    data = lines(tmp_path / "qa.json", {**RECORDS[0], "knowledge": ""})
    with pytest.raises(tk.ArgumentError, match=r"'Q0\?' of .* has no 'knowledge'"):
        benchmarks()["halueval"].task(data, knowledge=True)
    with pytest.raises(tk.ArgumentError, match="0 judgements of 2 answers"):
        halueval.score(halueval.read_questions(data), [])
