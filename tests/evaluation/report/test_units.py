"""Every metric with the unit and the direction that its benchmark declares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.report.cases import RIGHT, pope_task, write_run
from tests.evaluation.report.test_page import Reader
from truthkit import cli
from truthkit.evaluation.benchmark import Benchmark, Metric
from truthkit.evaluation.report import gather, write_report
from truthkit.evaluation.report.rescore import rescore
from truthkit.evaluation.tasks import benchmarks, builtin


def factcheck_runs(folder: Path) -> Path:
    """Greedy gets the third claim wrong; explanations of two and of three words."""
    labels = ["true", "half", "false"]
    data = folder / "c.jsonl"
    data.write_text("".join(json.dumps({"claim": f"Day {label}.", "label": label}) + "\n" for label in labels))
    task = benchmarks()["factcheck"].task(data)
    names = task.config["labels"]
    for name, verdicts in (("greedy", [*names[:2], names[0]]), ("dola", names)):
        answers = [
            {"verdict": said, "probabilities": {one: float(one == said) for one in names}, "explanation": "word " * n}
            for said, n in zip(verdicts, (2, 3, 2), strict=True)
        ]
        write_run(task, folder / "runs" / name, answers, text=name)
    return folder / "runs"


def open_runs(folder: Path) -> Path:
    data = folder / "p.txt"
    data.write_text("One day\nAnd then\n")
    task = benchmarks()["open-ended"].task(data)
    for name, text in (("greedy", "a b a b a b a b"), ("dola", "a b c d e f g h")):
        write_run(task, folder / "runs" / name, [{"text": text, "log_prob": -2.345}] * 2, text=name)
    return folder / "runs"


def heads(text: str, title: str) -> list[str]:
    """The heads of the Markdown table below a title."""
    return [cell.strip() for cell in text.split(title)[1].strip().splitlines()[0].strip("|").split("|")]


def test_factcheck(tmp_path: Path) -> None:
    report = gather([factcheck_runs(tmp_path)])
    write_report(report, tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    names = builtin()["factcheck"].task(tmp_path / "c.jsonl").config["labels"]
    assert heads(text, "### Every metric")[1:-1] == [
        "accuracy, % ↑", "macro-F1, % ↑", "calibration error, % ↓", "claims without verdict, % ↓",
        *(f"F1 of {name}, % ↑" for name in names), *(f"share of verdict {name}, %" for name in names),
        "length of explanations, words", "explanation agrees with verdict, % ↑",
    ]  # fmt: skip
    assert "### Against the baseline, in percentage points" in text
    greedy = next(line for line in text.splitlines() if line.startswith("| greedy"))
    assert "| 2.3 (" in greedy  # (2 + 3 + 2) / 3 words
    assert "| 66.7 (" in greedy
    assert not any("confusion" in caveat or "claims" in caveat for caveat in report.sections[0].caveats)
    write_report(report, tmp_path / "r.html")
    page = Reader((tmp_path / "r.html").read_text()).text
    assert "length of explanations, words" in page
    assert "share of verdict true, %" in page
    assert "claims without verdict, % ↓" in page
    assert "In percent;" not in page


def test_open_ended(tmp_path: Path) -> None:
    """Repetition is less good the more there is; diversity is tested between the runs, from texts that items keep."""
    report = gather([open_runs(tmp_path)])
    write_report(report, tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    assert heads(text, "### Every metric")[1:-1] == [
        "rep-2, % ↓", "rep-3, % ↓", "rep-4, % ↓", "diversity, % ↑", "coherence, nats per token ↑",
    ]  # fmt: skip
    assert "-2.35 (" in text or "-2.34 (" in text
    (section,) = report.sections
    assert section.title == "open-ended text"
    greedy, dola = section.entries
    change = dola.metrics["diversity"].value - greedy.metrics["diversity"].value
    assert dola.test is not None
    assert dola.test.difference.value == pytest.approx(change)


@pytest.mark.parametrize("runs", [factcheck_runs, open_runs])
def test_rescoring_gives_the_summary(runs: Any, tmp_path: Path) -> None:
    for entry in gather([runs(tmp_path)]).sections[0].entries:
        found = rescore(entry.run.items, entry.run.summary["config"]).metrics
        assert len(found) >= 5
        assert found == {name: entry.run.summary["metrics"][name] for name in found}


def test_tables_of_one_unit_say_it_once(tmp_path: Path) -> None:
    write_run(pope_task(tmp_path / "data"), tmp_path / "run", RIGHT)
    write_report(gather([tmp_path / "run"]), tmp_path / "r.html")
    page = Reader((tmp_path / "r.html").read_text()).text
    assert "In percent; ↑ higher is better." in page
    assert "yes ratio" in page
    assert "yes ratio ↑" not in page
    assert "accuracy, %" not in page


def test_the_terminal_says_units_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    runs = factcheck_runs(tmp_path)
    capsys.readouterr()
    assert cli.main(["compare", str(runs / "greedy"), str(runs / "dola"), "--show", "0"]) == 0
    lines = {line.split("│")[1].strip(): line for line in capsys.readouterr().out.splitlines() if "│" in line}
    assert "% ↑" in lines["accuracy"]
    assert "% ↓" in lines["ece"]
    assert lines["verdict_share_true"].split("│")[-2].strip() == "%"
    assert cli.main(["compare", str(runs / "greedy"), str(runs / "dola"), "--show", "-1"]) == 2


def test_families_and_undeclared_metrics() -> None:
    one = Benchmark("a", "A", lambda data: None, metrics=(Metric("f1_all", "F1"), Metric("f1_*", "F1 of *", digits=2)))  # type: ignore[arg-type, return-value]
    assert [one.metric(name).title for name in ("f1_all", "f1_half_true", "f2")] == ["F1", "F1 of half true", "f2"]
    assert (one.metric("f1_x").digits, one.metric("f1_x").plain(0.5)) == (2, "50.000")
    assert (one.metric("f2").better, one.metric("f2").share, one.metric("f2").plain(0.5)) == (0, False, "0.5000")
    with pytest.raises(ValueError, match="declares the metric 'x' twice"):
        Benchmark("a", "A", lambda data: None, metrics=(Metric("x"), Metric("x")))  # type: ignore[arg-type, return-value]


def test_every_metric_of_a_run_is_declared(tmp_path: Path) -> None:
    """What a benchmark scores and forgets to declare would be shown without a unit."""
    for number, runs in enumerate((factcheck_runs, open_runs)):
        (tmp_path / str(number)).mkdir()
        for entry in gather([runs(tmp_path / str(number))]).sections[0].entries:
            declared = benchmarks()[entry.run.summary["config"]["task"]].metrics
            for name in entry.metrics:
                assert any(metric.member(name) for metric in declared), name


def test_files_say_what_numbers_are_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed for programs; summaries take it from the same place."""
    task = pope_task(tmp_path)
    answers = tmp_path / "a.jsonl"
    answers.write_text("".join(json.dumps({"answer": one}) + "\n" for one in RIGHT))
    assert cli.main(["score", "pope", str(answers), "--data", str(task.data[0]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["units"] == dict.fromkeys(found["metrics"], "share")
    names = ("bleu_max", "rougeL_acc", "raw_mc2", "explanation_words", "coherence", "existence")
    tasks = ("truthfulqa", "truthfulqa", "truthfulqa", "factcheck", "open-ended", "mme")
    units = [builtin()[task].units([name])[name] for task, name in zip(tasks, names, strict=True)]
    assert units == ["%", "share", "share", "words", "nats per token", "points"]
