"""What guessing scores: declared once, drawn in charts and tables. Oracles: counting by hand, and guesses by lot."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.report.cases import RIGHT, mme_task, pope_task, truthfulqa_task, write_run, wrong_at
from tests.evaluation.report.test_page import Reader
from truthkit.evaluation.benchmark import Benchmark, Metric
from truthkit.evaluation.report import gather, write_report
from truthkit.evaluation.tasks import builtin
from truthkit.evaluation.tasks.truthfulqa import choices


def test_declared_levels() -> None:
    benchmarks = builtin()
    pairs = [{"category": "coco_order", "captions": "abcde"}, {"category": "vg_relation", "captions": "ab"}]
    cases = [
        ("pope", "accuracy", [], 0.5),
        ("pope", "f1", [], None),
        ("mmvp", "pair_accuracy", [], 0.25),
        ("amber", "accuracy_state", [], 50.0),
        ("amber", "precision_state", [], None),
        ("factor", "accuracy", [{"log_probs": [0, 0, 0, 0]}], 0.25),
        ("factor", "accuracy", [{}], None),
        ("factor", "accuracy", [], None),
        ("memotrap", "1-proverb-ending", [], 0.5),
        ("aro", "accuracy", pairs, (0.2 + 0.5) / 2),
        ("aro", "accuracy_coco_order", pairs, 0.2),
        ("aro", "accuracy_flickr_order", pairs, None),
        ("factcheck", "accuracy", [{"probabilities": {"true": 1, "half": 0, "false": 0}}], 1 / 3),
        ("detect", "auprc", [{"units": [[0.1, True, 3], [0.2, False, 3]]}, {"units": [[0.3, False, 1]]}], 1 / 3),
        ("chair", "chair_i", [], None),
        ("mme", "perception", [{"category": name} for name in ("existence", "count", "code_reasoning")], 150.0),
        ("mme", "existence", [], 75.0),
    ]
    for task, metric, lines, level in cases:
        found = benchmarks[task].chance(metric, lines)
        assert found == (None if level is None else pytest.approx(level)), (task, metric)


def test_truthfulqa_by_lot() -> None:
    """Scores by lot come to what the items say on average, and equal ones to MC2's."""
    question = choices.Question("Q?", tuple("abcde"), 0, (2, 3, 4), (0, 1), (2, 3, 4))
    rng = np.random.default_rng(0)
    drawn = [choices.choice_metrics(question, rng.normal(size=5).tolist(), protocol="authors") for _ in range(4000)]
    expected = choices._chance(question)
    for name in ("mc1", "mc3"):
        assert np.mean([one[name] for one in drawn]) == pytest.approx(expected[name], abs=0.025)
    assert expected == {"mc1": 1 / 4, "mc2": 2 / 5, "mc3": 1 / 4}


def test_mme_by_lot(tmp_path: Path) -> None:
    rng, score = random.Random(0), mme_task(tmp_path).score
    drawn = [score(range(8), [rng.choice(["Yes", "No"]) for _ in range(8)]).metrics["existence"] for _ in range(500)]
    assert sum(drawn) / len(drawn) == pytest.approx(75, abs=6)


def test_in_page_markdown_and_picture(tmp_path: Path) -> None:
    task = pope_task(tmp_path / "data")
    write_run(task, tmp_path / "runs" / "greedy", wrong_at(1, 3))
    write_run(task, tmp_path / "runs" / "vcd", RIGHT, text="vcd")
    report = gather([tmp_path / "runs"])
    assert report.sections[0].chance() == 0.5
    assert report.sections[0].chance_in("popular") == 0.5
    write_report(report, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert page.count('class="chance" style="left:50.00%"') == 2
    assert "Dotted lines are at chance, 50.0 %." in Reader(page).text
    write_report(report, tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    assert "| chance | 50.0 | – | – | – | – | – |\n" in text
    assert "| chance | 50.0 | 50.0 |\n" in text
    pytest.importorskip("matplotlib", reason="the extra plots is not installed")
    write_report(report, tmp_path / "r.svg")


def test_none_where_there_is_no_level(tmp_path: Path) -> None:
    """Of runs of an earlier version, too, whose items don't say what guessing would have scored."""
    write_run(truthfulqa_task(tmp_path / "t"), tmp_path / "run", [[-1.0, -2.0]] * 4)
    lines = tmp_path / "run" / "items.jsonl"
    assert gather([tmp_path / "run"]).sections[0].chance("mc1") == 0.5
    lines.write_text(lines.read_text().replace('"chance"', '"before"'))
    report = gather([tmp_path / "run"])
    assert report.sections[0].chance() is None
    write_report(report, tmp_path / "r.md")
    assert "| chance" not in (tmp_path / "r.md").read_text()
    plain = Benchmark("a", "A", lambda data: None, metrics=(Metric("x"),))  # type: ignore[arg-type, return-value]
    assert plain.chance("x", []) is None
    assert plain.chance("y", []) is None
