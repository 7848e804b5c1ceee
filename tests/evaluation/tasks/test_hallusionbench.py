"""HallusionBench by string match, against a plain reading of the authors' groups of questions."""

from __future__ import annotations

import json
import random
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
from truthkit.evaluation.tasks.hallusionbench import HALLUSIONBENCH, scorer
from truthkit.evaluation.tasks.hallusionbench.task import score_files
from truthkit.scenes.questions import held_out
from truthkit.scenes.render import render

Records = list[dict[str, Any]]


def record(category: str, set_: int, figure: int, number: int, shown: int, answer: int, **more: Any) -> dict[str, Any]:
    subcategory = {"VD": "illusion", "VS": "chart"}[category]
    name = None if shown == 0 else f"./{category}/{subcategory}/{set_}_{figure}.png"
    place = {"set_id": str(set_), "figure_id": str(figure), "question_id": str(number)}
    return {
        "category": category,
        "subcategory": subcategory,
        "visual_input": str(shown),
        **place,
        "question": f"Is there a {('dog', 'cat', 'cup')[number]} in the image?",
        "gt_answer": str(answer),
        "filename": name,
    } | more


def small() -> Records:
    """Two sets with an original and an edited figure, and two whose questions come without one too."""
    rng = random.Random(0)
    found = []
    for set_ in range(2):
        for number in range(3):
            found += [record("VD", set_, figure, number, figure + 1, rng.randint(0, 1)) for figure in range(2)]
            found += [record("VS", set_, figure, number, figure, rng.randint(0, 1)) for figure in range(3)]
    return found


def saved(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def expected(records: Records, right: list[bool], yes: list[bool]) -> dict[str, float]:
    """The oracle: every group of questions that the authors form, one after another."""

    def whole(key: Any, keep: Any = lambda _one: True) -> float:
        groups: dict[Any, list[bool]] = {}
        for one, hit in zip(records, right, strict=True):
            if keep(one):
                groups.setdefault(tuple(one[name] for name in ("category", "subcategory", "set_id", key)), []).append(
                    hit
                )
        return sum(map(all, groups.values())) / len(groups)

    labels = [one["gt_answer"] == "1" for one in records]
    wrong = [label for label, hit in zip(labels, right, strict=True) if not hit]
    return {
        "accuracy": sum(right) / len(right),
        "pair_accuracy": whole("question_id"),
        "figure_accuracy": whole("figure_id", lambda one: not (one["category"] == "VS" and one["figure_id"] == "0")),
        "easy_accuracy": whole("question_id", lambda one: one["visual_input"] != "2"),
        "hard_accuracy": whole("question_id", lambda one: one["visual_input"] == "2"),
        "yes_bias": (sum(yes) - sum(labels)) / len(labels),
        "false_yes": wrong.count(False) / len(wrong),
    }


@pytest.mark.parametrize("skill", [0.5, 0.95])
def test_metrics(skill: float, shared_data: Path, tmp_path: Path) -> None:
    """All 1,129 questions; and the score of each category is that of its questions."""
    path = shared_data / "data/hallusionbench/HallusionBench.json"
    records = json.loads(path.read_text())
    rng = random.Random(1)
    yes = [(one["gt_answer"] == "1") is (rng.random() < skill) for one in records]
    right = [(one["gt_answer"] == "1") is said for one, said in zip(records, yes, strict=True)]
    answered = [
        one | {"model_prediction": rng.choice((f"{word}.", f"{word}, the figure shows it", word.lower()))}
        for one, word in zip(records, ("Yes" if said else "No" for said in yes), strict=True)
    ]
    answers = saved(tmp_path / "result.json", answered)
    score = score_files(answers, path)
    assert score.metrics == pytest.approx(expected(records, right, yes))
    assert score.metrics == score_files(answers).metrics
    pairs = {(one["category"], one["subcategory"], one["set_id"], one["question_id"]) for one in records}
    assert (score.sizes["accuracy"], score.sizes["pair_accuracy"]) == (1129, len(pairs))
    parts = scorer.by_category(score)
    assert list(parts)[:2] == ["VD", "VS"]
    assert {"VD illusion", "VS chart", "VS ocr", "VD ocr"} < parts.keys()
    for name in ("VD", "VS"):
        rows = [i for i, one in enumerate(records) if one["category"] == name]
        own = ([column[i] for i in rows] for column in (records, right, yes))
        assert parts[name].metrics == pytest.approx(expected(*own))
    low, high = score.intervals(resamples=300)["figure_accuracy"]
    assert low < score.metrics["figure_accuracy"] < high


@each(
    ("answer", "either", "first", "strict", "pope"),
    [
        ("Yes", "yes", "yes", "yes", "yes"),
        ("no.", "no", "no", None, "no"),
        ("1", "yes", "yes", "yes", "yes"),
        (" 0 ", "no", "no", "no", "no"),
        ("2", None, None, None, "yes"),
        ("Yes, no doubt.", None, "yes", None, "no"),
        ("No. Yes?", None, "no", None, "no"),
        ("I know nothing; yesterday", None, None, None, "yes"),
        ("", None, None, None, "yes"),
    ],
)
def test_parsers(answer: str, either: Any, first: Any, strict: Any, pope: Any) -> None:
    found = [scorer.parse(answer, parser=parser) for parser in ("either", "first", "strict", "pope")]
    assert found == [either, first, strict, pope]


def folder(path: Path) -> Path:
    """The benchmark with its figures."""
    for number, scene in enumerate(held_out(7)):
        category, subcategory = (("VD", "illusion"), ("VS", "chart"))[number % 2]
        for set_ in range(2):
            place = path / f"images/hallusion_bench/{category}/{subcategory}"
            place.mkdir(parents=True, exist_ok=True)
            render(scene).save(place / f"{set_}_{number // 2}.png")
    return saved(path / "HallusionBench.json", small())


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Questions without a figure among them; resumed; scored again with another parser, and from a file."""
    data = folder(tmp_path)
    task = HALLUSIONBENCH.task(data, suffix=" Yes or no?")
    assert [len(item.images) for item in task.items].count(0) == 6
    model, processor = tk.load("scene-vlm")
    asking = Asking(model, processor, parse_spec("greedy"), {}, max_new_tokens=6)
    whole = run(task, asking, tmp_path / "whole", model_name="scenes", units=HALLUSIONBENCH.units)
    run(task, asking, tmp_path / "parts", model_name="scenes")
    records = tmp_path / "parts/records.jsonl"
    records.write_text("\n".join(records.read_text().splitlines()[:9]) + "\n")
    assert run(task, asking, tmp_path / "parts", model_name="scenes")["metrics"] == whole["metrics"]
    lines = [json.loads(line) for line in (tmp_path / "whole/items.jsonl").read_text().splitlines()]
    assert rescore(lines, whole["config"]).metrics == whole["metrics"]
    answers = saved(
        tmp_path / "a.json", [one | {"output": line["answer"]} for one, line in zip(small(), lines, strict=True)]
    )
    assert score_files(answers, data).metrics == whole["metrics"]
    assert cli.main(["score", "hallusionbench", str(tmp_path / "whole"), "--parser", "pope", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["config"]["parser"] == "pope"
    assert again["categories"].keys() == {"VD", "VS", "VD illusion", "VS chart"}


def test_decoders_that_compare_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = folder(tmp_path), str(tmp_path / "run")
    command = ["eval", "hallusionbench", "--data", str(data), "--model", "scene-vlm", "--decoder", "vcd"]
    assert cli.main([*command, "--out", str(tmp_path / "refused")]) == 2
    assert "comes without one; leave such questions out with --figures-only" in capsys.readouterr().err
    more = ["--max-new-tokens", "4", "--figures-only", "--controls", "--limit", "8", "--out", out]
    assert cli.main([*command, *more]) == 0
    assert json.loads((tmp_path / "run/greedy/summary.json").read_text())["config"]["figures_only"] is True
    assert "Only some questions were asked" in capsys.readouterr().out
    assert cli.main(["report", out, "--out", str(tmp_path / "r.md")]) == 0
    assert "accuracy per figure" in (tmp_path / "r.md").read_text()


@each(
    ("change", "message"),
    [
        ({"category": "XX"}, "record 1: 'category' is 'XX'; expected VD or VS"),
        ({"gt_answer": "2"}, "'gt_answer' is '2'; expected 0 or 1"),
        ({"visual_input": "3"}, "'visual_input' is '3'; expected 0, 1 or 2"),
        ({"filename": None}, "record 1: no 'filename'"),
        ({"set_id": None}, "record 1: no 'set_id'"),
        ({"question": 3}, "'question' is 3; expected text"),
        ({"figure_id": "1"}, "q.json, record 2: VD_illusion_0_1_0 is at q.json, record 1 already"),
    ],
)
def test_wrong_data(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    records = small()
    records[0] |= change
    with pytest.raises(tk.ArgumentError, match=message):
        scorer.read_questions(saved(tmp_path / "q.json", records))


@each(
    ("answers", "message"),
    [
        ([{"answer": "Yes"}], "a.json has 1 answers for 30 questions, and no 'question_id'"),
        ([small()[0] | {"answer": "Yes"}], "29 of 30 questions have no answer; the first is VD_illusion_0_1_0"),
        ([small()[0] | {"set_id": 9, "answer": "Yes"}], "VD_illusion_9_0_0 is none of the 30 questions"),
        ([small()[0] | {"answer": "Yes"}] * 2, "record 2: VD_illusion_0_0_0 was answered before"),
        ([small()[0]], "no 'answer' or 'text'"),
        ([], "has no records"),
    ],
)
def test_wrong_answers(answers: Records, message: str, tmp_path: Path) -> None:
    questions = scorer.read_questions(saved(tmp_path / "q.json", small()))
    with pytest.raises(tk.ArgumentError, match=message):
        scorer.read_answers(saved(tmp_path / "a.json", answers), questions)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(tk.ArgumentError, match=r"has no questions: expected HallusionBench\.json in it"):
        scorer.read_questions(tmp_path)
    data = saved(tmp_path / "q.json", small())
    (tmp_path / "images").mkdir()
    with pytest.raises(tk.NotAvailableError, match=r"has no image VD/illusion/0_0\.png; pass the folder that holds VD"):
        HALLUSIONBENCH.task(data)
    blank = saved(tmp_path / "q.json", [one for one in small() if one["visual_input"] == "0"])
    assert HALLUSIONBENCH.task(blank).items
    with pytest.raises(tk.ArgumentError, match="has no questions with a figure; leave out --figures-only"):
        HALLUSIONBENCH.task(blank, figures_only=True)


def test_nothing_to_rest_on() -> None:
    """No edited figure, nothing wrong: such shares are no numbers, and nothing fails."""
    one = scorer.Question("VS", "chart", "0", "0", "0", "0", "Is it?", "yes")
    metrics = scorer.score([one], ["Yes"]).metrics
    assert metrics["accuracy"] == metrics["pair_accuracy"] == 1
    assert all(metrics[name] != metrics[name] for name in ("hard_accuracy", "figure_accuracy", "false_yes"))
