"""What a report says: which runs, against which baseline, tested how, with which caveats."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from tests.evaluation.report.cases import RIGHT, mme_task, pope_task, truthfulqa_task, write_run, wrong_at
from truthkit.errors import NotAvailableError
from truthkit.evaluation.benchmark import Metric
from truthkit.evaluation.report import Report, gather
from truthkit.evaluation.report.compare import compare, read_run
from truthkit.evaluation.report.flips import choose_flips
from truthkit.evaluation.report.provenance import facts
from truthkit.evaluation.report.rescore import rescore
from truthkit.evaluation.report.summary import findings
from truthkit.evaluation.report.words import Scale, p_value, seconds
from truthkit.statistics.intervals import holm


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Three runs of POPE: greedy, one that is better, one that is worse and sampled."""
    task = pope_task(tmp_path / "data")
    return {
        "greedy": write_run(task, tmp_path / "runs" / "greedy", wrong_at(1, 3)),
        "vcd": write_run(task, tmp_path / "runs" / "vcd", RIGHT, text="vcd"),
        "ritual": write_run(task, tmp_path / "runs" / "ritual", wrong_at(0, 1, 3, 5, 7), text="ritual", sample=True),
    }


def section(report: Report) -> Any:
    (only,) = report.sections
    return only


def test_runs_below_a_folder(folders: dict[str, Path], tmp_path: Path) -> None:
    report = gather([tmp_path / "runs", folders["vcd"]])
    found = section(report)
    assert [entry.label for entry in found.entries] == ["greedy", "ritual, sampled at 1", "vcd"]
    assert report.notes == []
    assert (found.headline, found.metrics) == ("accuracy", ["accuracy", "precision", "recall", "f1", "yes_ratio"])
    for entry in found.entries:
        assert {name: e.value for name, e in entry.metrics.items()} == entry.run.summary["metrics"]
    greedy = found.entries[0]
    assert greedy.test is None
    assert greedy.yes.value == pytest.approx(8 / 12)
    assert found.yes_labels.value == 0.5
    assert greedy.cost.value == pytest.approx(0.125)
    assert greedy.cost.interval.low < 0.125 < greedy.cost.interval.high
    assert {name: round(e.value, 3) for name, e in greedy.categories.items()} == {"popular": 1.0, "adversarial": 0.667}


def test_paired_tests_are_those_of_compare(folders: dict[str, Path]) -> None:
    found = section(gather([folders["ritual"], folders["greedy"], folders["vcd"]]))
    tests = {entry.label: entry.test for entry in found.entries}
    expected = compare(read_run(folders["greedy"]), read_run(folders["vcd"]))
    assert tests["vcd"].difference == expected.changes["accuracy"]
    assert tests["vcd"].difference.value == pytest.approx(2 / 12)
    assert (tests["vcd"].comparison.answers.gained, tests["vcd"].comparison.answers.lost) == (2, 0)
    ps = [tests[label].difference.p for label in ("ritual, sampled at 1", "vcd")]
    assert [tests[label].holm for label in ("ritual, sampled at 1", "vcd")] == holm(ps)


def test_images_that_moved(folders: dict[str, Path], tmp_path: Path) -> None:
    before = section(gather(folders.values())).flips[0].images[0]  # type: ignore[arg-type]
    moved = tmp_path / "moved"
    moved.mkdir()
    with pytest.raises(NotAvailableError, match="no such folder"):
        gather(folders.values(), images=tmp_path / "nowhere")  # type: ignore[arg-type]
    flips = section(gather(folders.values(), images=moved)).flips  # type: ignore[arg-type]
    assert flips[0].images[0] == before
    for place in (moved / before.name, moved / before.parent.name / before.name):  # the longer ending goes first
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(before.read_bytes())
        flips = section(gather(folders.values(), images=moved)).flips  # type: ignore[arg-type]
        assert flips[0].images[0] == place


def test_flips(folders: dict[str, Path]) -> None:
    found = section(gather(folders.values()))  # type: ignore[arg-type]
    assert found.flipped == len(found.flips) == 5  # 1, 3 by vcd; 0, 5, 7 by ritual
    flip = next(flip for flip in found.flips if flip.images[0].name == "0.jpg" and flip.truth == "yes")
    assert [(answer.labels, answer.text, answer.correct) for answer in flip.answers] == [
        (("greedy", "vcd"), "Yes.", True),
        (("ritual, sampled at 1",), "No.", False),
    ]
    assert flip.images[0].is_file()
    assert section(gather(folders.values(), flips=2)).flips == found.flips[:2]  # type: ignore[arg-type]
    assert section(gather(folders.values(), flips=0)).flips == []  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["vcd", "runs/vcd"])
def test_another_baseline(name: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = section(gather([tmp_path / "runs"], baseline=name))
    assert found.baseline.label == "vcd"
    assert {entry.test.against for entry in found.tested} == {"vcd"}


def test_several_models_have_baselines_of_their_own(tmp_path: Path) -> None:
    task = pope_task(tmp_path / "data")
    for model, numbers in (("a", (1,)), ("b", (1, 3, 5))):
        write_run(task, tmp_path / "runs" / model / "greedy", wrong_at(*numbers), model=model)
        write_run(task, tmp_path / "runs" / model / "vcd", RIGHT, model=model, text="vcd")
    against = {e.label: e.test and e.test.against for e in section(gather([tmp_path / "runs"])).entries}
    assert against == {"a: greedy": None, "a: vcd": "a: greedy", "b: greedy": "a: greedy", "b: vcd": "b: greedy"}


def test_the_baseline_is_the_unmodified_model(tmp_path: Path) -> None:
    """Whatever was read first, with whatever adapter or steering."""
    task = pope_task(tmp_path / "data")
    modified = (("1", "m + a/lie", {"adapter": "x"}), ("2", "m steered by a/v.npz:2", {"steering": "y"}))
    for folder, name, more in modified:
        contents = {"weights": "w", **more}
        write_run(task, tmp_path / "runs" / folder, wrong_at(1, 3, 5), model=name, contents=contents)
    alone = gather([tmp_path / "runs"])
    assert any("no greedy run of the unmodified model" in caveat for caveat in section(alone).caveats)
    write_run(task, tmp_path / "runs" / "3", RIGHT, model="m", contents={"weights": "w"})
    found = section(gather([tmp_path / "runs"]))
    assert found.baseline.label == "m: greedy"
    against = {entry.label: entry.test and entry.test.against for entry in found.entries}
    assert against == {"m: greedy": None, "m + lie: greedy": "m: greedy", "m steered by v.npz:2: greedy": "m: greedy"}
    assert not any("baseline" in caveat for caveat in found.caveats)
    assert "against m: greedy, the unmodified model." in findings(found)[0]


def test_a_result_is_no_setting(tmp_path: Path) -> None:
    """Of benchmarks that declare none, too."""
    task = replace(pope_task(tmp_path / "data"), name="someones")
    score = task.score

    def counted(which: Any, outputs: Any) -> Any:
        return replace(score(which, outputs), config={"counted": outputs.count("Yes.")})

    task = replace(task, score=counted)
    write_run(task, tmp_path / "runs" / "a", wrong_at(1, 3))
    write_run(task, tmp_path / "runs" / "b", RIGHT, text="vcd")
    found = section(gather([tmp_path / "runs"]))
    assert not any("counted" in caveat for caveat in found.caveats)
    assert "counted" not in str(facts(found))


def test_a_repeated_run_is_shown_once_and_equal_names_are_told_apart(tmp_path: Path) -> None:
    task = pope_task(tmp_path / "data")
    for folder in ("x/greedy", "y/greedy"):
        write_run(task, tmp_path / "runs" / folder, wrong_at(1))
    for seed in (0, 1):
        write_run(task, tmp_path / "runs" / f"seed{seed}", RIGHT, text="vcd", sample=True, seed=seed)
    report = gather([tmp_path / "runs"])
    labels = [entry.label for entry in section(report).entries]
    assert labels == ["greedy", "vcd, sampled at 1 [seed0]", "vcd, sampled at 1 [seed1]"]
    assert [note.endswith("is shown once.") for note in report.notes] == [True]


def test_caveats(tmp_path: Path) -> None:
    task = pope_task(tmp_path / "data", images=6)
    write_run(task, tmp_path / "runs" / "a", wrong_at(1))
    write_run(task, tmp_path / "runs" / "b", RIGHT, text="vcd", sample=True, limit=6, seed=1)
    summary = tmp_path / "runs" / "b" / "summary.json"
    changed = json.loads(summary.read_text())
    changed["provenance"]["data_sha256"]["q.json"] = "0" * 64
    changed["provenance"]["hardware"] = "abacus"
    changed["provenance"]["versions"]["torch"] = "0.1"
    summary.write_text(json.dumps(changed))
    text = "\n".join(section(gather([tmp_path / "runs"])).caveats)
    for part in (
        "differ in the data they were run on (SHA-256): q.json",
        "differ in seed: 0 for greedy; 1 for vcd, sampled at 1.",
        "differ in limit: none for greedy; 6 for vcd, sampled at 1.",
        "differ in the version of torch",
        "abacus for vcd, sampled at 1. Their costs cannot be compared.",
        "6 items in common, of 6 and 12; they are tested on those",
        "There are only 3 different images or questions",
    ):
        assert part in text
    assert "temperature" not in text


def test_no_items_in_common(tmp_path: Path) -> None:
    first, second = pope_task(tmp_path / "a"), pope_task(tmp_path / "b", text="Is there a cat?")
    write_run(first, tmp_path / "runs" / "a", RIGHT)
    write_run(second, tmp_path / "runs" / "b", RIGHT, text="vcd")
    found = section(gather([tmp_path / "runs"]))
    assert found.tested == []
    assert any("is not tested against greedy" in caveat and "no items in common" in caveat for caveat in found.caveats)


def test_a_section_for_each_task_and_data(tmp_path: Path) -> None:
    write_run(pope_task(tmp_path / "p", name="one.json"), tmp_path / "runs" / "1", RIGHT)
    write_run(pope_task(tmp_path / "p", name="two.json"), tmp_path / "runs" / "2", wrong_at(1))
    write_run(truthfulqa_task(tmp_path / "t"), tmp_path / "runs" / "3", [[-1.0, -2.0], [-2.0, -1.0]] * 2)
    titles = [found.title for found in gather([tmp_path / "runs"]).sections]
    assert titles == ["POPE: one.json", "POPE: two.json", "TruthfulQA"]


def test_mme_subtasks_are_categories(tmp_path: Path) -> None:
    task = mme_task(tmp_path / "mme")
    write_run(task, tmp_path / "runs" / "a", ["Yes", "No"] * 4)
    write_run(task, tmp_path / "runs" / "b", ["Yes", "Yes"] + ["Yes", "No"] * 3, text="vcd")
    found = section(gather([tmp_path / "runs"]))
    assert (found.headline, found.metrics) == ("perception", ["perception", "cognition"])
    assert found.categories == ["existence", "code_reasoning"]
    assert (found.scale().unit, found.scale().factor) == ("points", 1)
    # One of four answers wrong: 75 + 50 instead of 200.
    assert found.entries[1].categories["existence"].value == 125
    assert found.entries[1].test.difference.value == -75


def test_choices_say_which_was_chosen(tmp_path: Path) -> None:
    task = truthfulqa_task(tmp_path / "t")
    write_run(task, tmp_path / "runs" / "a", [[-2.0, -1.0]] * 4)
    write_run(task, tmp_path / "runs" / "b", [[-1.0, -2.0]] * 4, text="dola")
    found = section(gather([tmp_path / "runs"], flips=1))
    (flip,) = found.flips
    assert flip.truth == "Nothing."
    assert [answer.text for answer in flip.answers] == ["All.", "Nothing."]
    assert found.headline == "mc2"


def test_flipped_captions_name_what_they_invent() -> None:
    before = {"key": "1", "output": "A cat.", "prompt": "Describe.", "correct": False, "hallucinated": ["cat", "cat"]}
    before |= {"ground_truth": ["bed", "dog"]}
    after = before | {"output": "A dog. " + "Bark! " * 300, "correct": True, "hallucinated": []}
    (flip,) = choose_flips({"vcd": ([(before, after)], [])}, {"greedy": [before], "vcd": [after]}, 3)
    assert (flip.question, flip.truth, flip.images) == ("Describe.", "bed, dog", ())
    assert [answer.note for answer in flip.answers] == ["not in the image: cat", ""]
    assert flip.answers[1].text.endswith("… (1,807 characters)")


def test_rescoring_gives_the_summary(tmp_path: Path) -> None:
    for task, answers in (
        (pope_task(tmp_path / "p"), wrong_at(1, 2)),
        (mme_task(tmp_path / "m"), ["Yes", "No", "No", "No"] * 2),
        (truthfulqa_task(tmp_path / "t"), [[-1.0, -2.0], [-2.0, -1.0]] * 2),
    ):
        run = read_run(write_run(task, tmp_path / task.name, answers))
        score = rescore(run.items, run.summary["config"])
        assert {name: score.metrics[name] for name in run.summary["metrics"]} == run.summary["metrics"]


def test_rescoring_captions() -> None:
    items = [
        {"cluster": "1", "objects": ["dog", "cat", "dog"], "hallucinated": ["cats"], "ground_truth": ["dog", "bed"]},
        {"cluster": "2", "objects": ["cup"], "hallucinated": [], "ground_truth": ["cup"]},
    ]
    assert rescore(items, {"task": "chair"}).metrics == pytest.approx(
        {"chair_s": 0.5, "chair_i": 0.25, "recall": 2 / 3}
    )


def test_unfinished_and_foreign_folders(folders: dict[str, Path], tmp_path: Path) -> None:
    (folders["vcd"] / "summary.json").unlink()
    report = gather([tmp_path / "runs"])
    assert report.notes == [f"{folders['vcd']} is unfinished and not shown."]
    with pytest.raises(tk.NotAvailableError, match=r"no finished run: there is no summary\.json"):
        gather([folders["vcd"]])
    with pytest.raises(tk.NotAvailableError, match="there is no folder"):
        gather([tmp_path / "none"])
    with pytest.raises(tk.NotAvailableError, match="holds no finished run"):
        gather([tmp_path / "data"])
    with pytest.raises(tk.ArgumentError, match="flips is -1"):
        gather([tmp_path / "runs"], flips=-1)
    with pytest.raises(tk.ArgumentError, match="none of the runs; expected a folder of one, or greedy, ritual"):
        gather([tmp_path / "runs"], baseline="dola")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("summary.json", "{", "not JSON"),
        ("summary.json", '{"results": {}}', "no summary of `truthkit eval`: it has no 'metrics'"),
        ("summary.json", '{"metrics": {}, "intervals": {}, "config": {}, "provenance": {}}', "config has no 'task'"),
        (
            "summary.json",
            '{"metrics": {"a": 1}, "intervals": {"a": 2}, "config": {"task": "", "model": "", "decoder": ""}, '
            '"provenance": {}}',
            r"'a' is \[1, 2\]; expected a number and its interval",
        ),
        ("items.jsonl", "[]", "line 1: no item"),
        ("items.jsonl", "{", "line 1: not JSON"),
    ],
)
def test_broken_runs(name: str, content: str, message: str, folders: dict[str, Path], tmp_path: Path) -> None:
    (folders["vcd"] / name).write_text(content)
    with pytest.raises(tk.ArgumentError, match=message):
        gather([tmp_path / "runs"])


def test_an_ambiguous_baseline(tmp_path: Path) -> None:
    task = pope_task(tmp_path / "data")
    for seed in (0, 1):
        write_run(task, tmp_path / "runs" / f"seed{seed}", wrong_at(seed), text="vcd", sample=True, seed=seed)
    with pytest.raises(tk.ArgumentError, match=r"baseline is both .*seed0 and .*seed1"):
        gather([tmp_path / "runs"], baseline="vcd, sampled at 1")


def test_holm() -> None:
    """The example of Holm's method in R's `p.adjust`."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_numbers_in_words() -> None:
    assert [seconds(value) for value in (0.0, 0.0123, 0.25, 1.0, 75.0, 7200.0)] == [
        "0 ms", "12 ms", "250 ms", "1.0 s", "1.2 min", "2.0 h",
    ]  # fmt: skip
    share, words = Scale(Metric("a")), Scale(Metric("b", share=False, unit="words", digits=2))
    assert [share.difference(value) for value in (0.031, -0.02, 0.0001)] == ["+3.1", "−2.0", "0.0"]
    assert (words.value(125), words.difference(-0.001), share.value(float("nan"))) == ("125.00", "0.00", "–")
    assert (share.title, words.title, Scale(Metric("c", share=False)).title) == ("a, %", "b, words", "c")
    assert (p_value(0.0002), p_value(0.0421)) == ("< 0.001", "0.042")
