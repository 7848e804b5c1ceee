"""The benchmark `detect` on tiny models and files. Oracle: figures counted by hand, and `tk.detect` item by item."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from tests.tiny import tiny
from tests.tiny_vlm import toy_tokenizer
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.report import gather, write_report
from truthkit.evaluation.report.compare import read_run
from truthkit.evaluation.report.rescore import rescore
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.runs import run
from truthkit.evaluation.tasks import benchmarks
from truthkit.evaluation.tasks.detect.data import mentions, read_questions
from truthkit.evaluation.tasks.detect.task import score_files, task


def lines(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def halueval(tmp_path: Path) -> Path:
    records = [
        {"knowledge": f"Fact {n}.", "question": f"What is {n}?", "right_answer": f"{n}", "hallucinated_answer": "It is"}
        | {"hallucinated_answer": f"It is {n + 1}."}
        for n in range(6)
    ]
    return lines(tmp_path / "qa.json", *records)


def asking(decoder: str = "greedy") -> Asking:
    return Asking(tiny("llama"), toy_tokenizer(), parse_spec(decoder), {})


def test_a_run_goes_on_and_is_rescored(halueval: Path, tmp_path: Path) -> None:
    out, one = tmp_path / "run", task(halueval, method="mean_log_prob")
    summary = run(one, asking(), out, model_name="tiny")
    written = (out / "records.jsonl").read_bytes()
    assert run(one, asking(), out, model_name="tiny")["metrics"] == summary["metrics"]
    assert (out / "records.jsonl").read_bytes() == written  # nothing was asked again

    model, tokenizer = tiny("llama"), toy_tokenizer()
    right = tk.detect(model, tokenizer, [f"What is {n}?" for n in range(6)], [f"{n}" for n in range(6)])
    false = tk.detect(model, tokenizer, [f"What is {n}?" for n in range(6)], [f"It is {n + 1}." for n in range(6)])
    won = [a.score > b.score for a in false for b in right]
    assert summary["metrics"]["auroc"] == pytest.approx(sum(won) / 36)
    assert summary["metrics"]["base_rate"] == 0.5
    assert summary["metrics"]["auroc_length"] == 1.0  # every false answer is longer
    assert summary["metrics"]["auroc_gain"] == pytest.approx(sum(won) / 36 - 1)
    assert summary["n"]["auroc"] == 12
    assert summary["config"]["risk_coverage"][-1] == [1.0, 0.5]

    finished = read_run(out)
    again = rescore(finished.items, finished.summary["config"])
    assert again.metrics == pytest.approx(summary["metrics"])
    assert len(set(again.clusters)) == 6
    write_report(gather([out]), tmp_path / "report.html")
    (points,) = re.findall(r'<polyline points="([^"]+)"', (tmp_path / "report.html").read_text())
    assert len(points.split()) == 20
    grids = benchmarks()["detect"].remarks(summary["config"])  # type: ignore[misc]
    assert len(grids) == 2


def test_knowledge_is_the_context(halueval: Path, tmp_path: Path) -> None:
    one = task(halueval, method="agreement", knowledge=True)
    outputs = one.ask(asking(), one.items[:2])  # type: ignore[misc]
    wanted = tk.detect(
        tiny("llama"),
        toy_tokenizer(),
        ["Fact 0.\n\nWhat is 0?"],
        ["It is 1."],
        method="agreement",
        contexts=["Fact 0."],
    )
    assert outputs[0]["scores"][1] == pytest.approx(wanted[0].score, abs=1e-4)


def test_forms_are_told_by_their_fields(tmp_path: Path) -> None:
    labelled = [
        {"prompt": "a?", "answer": "yes", "false": False},
        {"prompt": "b?", "answer": "no", "false": True},
        {"prompt": "a?", "answer": "no", "false": True},
    ]
    form, questions = read_questions(lines(tmp_path / "labelled.jsonl", *labelled))
    assert (form, [one.answers for one in questions]) == ("labelled", [("yes", "no"), ("no",)])
    truthful = {"question": "q?", "mc1_targets": {"a": 1, "b": 0}, "mc2_targets": {"a": 1, "b": 0, "c": 1}}
    form, questions = read_questions(lines(tmp_path / "t.json", truthful))
    assert (form, questions[0].false) == ("truthfulqa", (False, True, False))
    scenes = [{"image": "1.png", "objects": ["cup", "traffic light"]}, {"image": "2.png", "objects": ["dog"]}]
    form, questions = read_questions(lines(tmp_path / "scenes.jsonl", *scenes))
    assert form == "captions"
    assert [name for name, _ in mentions("Traffic lights, a dog and a cup.", questions[1].known)] == [
        "traffic light",
        "dog",
        "cup",
    ]


def test_captions_are_judged_object_by_object(tmp_path: Path) -> None:
    records = [{"image": f"{n}.png", "objects": ["cup"] if n else ["dog"]} for n in range(2)]
    one = task(lines(tmp_path / "scenes.jsonl", *records), method="mean_log_prob")
    said = "A cup, a dog."
    tokens = [[0, 1, 0.5], [1, 5, 2.0], [5, 6, 0.1], [6, 8, 0.1], [8, 12, 1.0], [12, 13, 0.0]]
    outputs = [{"answers": [said], "scores": [0.6], "tokens": [tokens]}] * 2
    score = one.score([0, 1], outputs)
    # the cup (score 2, false in the first picture) and the dog (1, false in the second), at characters 2 and 9
    assert [item["units"] for item in score.items] == [
        [[2.0, True, 2], [1.0, False, 9]],
        [[2.0, False, 2], [1.0, True, 9]],
    ]
    assert score.metrics["auroc"] == 0.5
    assert score.config["level"] == "token"
    whole = task(tmp_path / "scenes.jsonl", method="mean_log_prob", level="answer").score([0, 1], outputs)
    assert whole.metrics["base_rate"] == 1.0
    empty = [{"answers": ["Nothing."], "scores": [0.6], "tokens": [[[0, 8, 1.0]]]}] * 2
    assert one.score([0, 1], empty).sizes["auroc"] == 0
    assert one.score([0, 1], empty).intervals(resamples=10)


def test_scores_of_others(halueval: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"What is {n}?", "answer": answer, "score": score}
        for n in range(4)
        for answer, score in ((f"{n}", 0.2), (f"It is {n + 1}.", 0.9))
    ]
    file = lines(tmp_path / "scores.jsonl", *rows)
    found = score_files(file, halueval, probability=True)
    assert found.metrics["auroc"] == 1.0
    assert found.metrics["ece"] == pytest.approx(0.15)
    assert found.metrics["risk_50"] == 0
    bad: list[tuple[list[dict[str, Any]], Path | None, str]] = [
        (rows, None, "'false' is .*; expected true or false"),
        ([rows[0] | {"false": True}], None, "all answers of .* are false; an area under the ROC curve needs some of"),
        ([rows[0] | {"answer": "5"}], halueval, "has no answer '5' to 'What is 0"),
        ([rows[0] | {"score": "high"}], halueval, "'score' is .*; expected a number"),
    ]
    for records, data, message in bad:
        with pytest.raises(tk.ArgumentError, match=message) as error:
            score_files(lines(tmp_path / "bad.jsonl", *records), data)
        assert "\n" not in str(error.value)


def test_what_cannot_be_judged_is_said(halueval: Path, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"method": "eigenscore"}, "--method eigenscore scores prompts"),
        ({"method": "p_tru"}, "did you mean 'p_true'"),
        ({"level": "token"}, "--level is for captions"),
        ({"captions": tmp_path}, "--captions is for images"),
    ]
    for options, message in cases:
        with pytest.raises(tk.ArgumentError, match=message):
            task(halueval, **options)
    with pytest.raises(tk.ArgumentError, match="leave out --decoder"):
        task(halueval).ask(asking("apc"), task(halueval).items[:1])  # type: ignore[misc]
    with pytest.raises(tk.ArgumentError, match="has the fields other; expected HaluEval's"):
        read_questions(lines(tmp_path / "other.jsonl", {"other": 1}))
