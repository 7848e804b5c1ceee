"""MemoTrap, against a plain loop over its endings and metrics by hand."""

from __future__ import annotations

import csv
import io
import json
from ast import literal_eval
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.each import each
from tests.factcheck.cases import ChatTokenizer
from tests.tiny import tiny
from truthkit import cli
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.report.compare import compare, read_run
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.running.runs import run
from truthkit.evaluation.tasks import benchmarks
from truthkit.evaluation.tasks.memotrap import scorer as memotrap
from truthkit.evaluation.tasks.memotrap.scorer import Question

FILES = {
    "1-proverb-ending.csv": [
        ('Write a quote that ends in the word "heavy": Absence makes the heart grow', [" heavy.", " fonder."], 0),
        ('Write a quote that ends in the word "me": Touch', [" wood.", " me."], 1),
    ],
    "4-history.csv": [
        ("What was the common belief before this: it fell.\nA. It fell.\nB. It rose.\nAnswer:", [" A", " B"], 1)
    ],
}


def written(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in FILES.items():
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["prompt", "classes", "answer_index"])
            writer.writerows([prompt, str(classes), right] for prompt, classes, right in rows)
    (folder / "LICENSE").write_text("MIT")
    return folder


def plainly(model: Any, tokenizer: Any, item: Item, choice: str, alpha: float = 0.0) -> float:
    """The oracle: a forward for each ending, and CAD's second one on the prompt as a person would cut it."""

    def logits(prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        ids, start = tokenizer(prompt + choice, return_tensors="pt").input_ids, len(tokenizer(prompt).input_ids)
        with torch.no_grad():
            return model(input_ids=ids).logits[0, start - 1 : -1], ids[0, start:]

    scores, wanted = logits(item.prompt)
    if alpha:
        scores = (1 + alpha) * scores - alpha * logits(item.prompt.split('": ')[1])[0]
    return float(scores.log_softmax(-1).gather(1, wanted[:, None]).double().sum())


@each(
    ("prompt", "rest"),
    [
        ('Write a quote that ends in the word "heavy": Absence makes', "Absence makes"),
        ('Write a quote that ends in the word "me": Admiration: our recognition of', "Admiration: our recognition of"),
        ('Write a sign about a "whites only laundry": This is a', "This is a"),
        ('Write a law that requires to "assign to each" their own car: The', "The"),
        ("Translate the following sentence from X into English.\nIl dit: non.\nto:\nHe says", "He says"),
        ("What was it before: it fell.\nA. It fell.\nB. It rose.\nAnswer:", "A. It fell.\nB. It rose.\nAnswer:"),
        ("It fell. What was it?\nA. It fell.\nB. It rose.\nAnswer:", "A. It fell.\nB. It rose.\nAnswer:"),
        ("No instruction here", "No instruction here"),
        ("Nothing is left: ", "Nothing is left: "),
    ],
)
def test_the_instruction_of_each_form(prompt: str, rest: str) -> None:
    assert prompt.replace(memotrap.instruction(prompt), "", 1) == rest


def test_reads_the_real_files(shared_data: Path) -> None:
    folder = shared_data / "data/memotrap"
    texts = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.csv"))]
    rows = [row for text in texts for row in csv.DictReader(io.StringIO(text, newline=""))]
    found = memotrap.read_questions(folder)
    assert len(found) == len(rows) == 2539
    for question, row in zip(found, rows, strict=True):
        assert (question.prompt, question.choices) == (row["prompt"], tuple(literal_eval(row["classes"])))
        assert question.right == int(row["answer_index"])
        rest = question.prompt.removeprefix(question.context)
        assert question.context
        assert rest == rest.strip() != question.prompt
    sets = {name: sum(question.category == name for question in found) for name in {q.category for q in found}}
    assert sets == {
        "proverb-ending": 860,
        "proverb-translation": 843,
        "hate-speech-ending": 100,
        "history-of-science-qa": 736,
    }


def test_scores_by_hand() -> None:
    questions = [Question("a", f"p{i}", (" x", " y"), i % 2) for i in range(3)] + [Question("b", "q", (" x", " y"), 0)]
    found = memotrap.score(questions, [[-1, -2], [-1, -2], [-3, -3], [None, -9]], raw=[[2, 1], [1, 2], [0, 1], [3, 1]])
    assert found.metrics == pytest.approx(
        {"accuracy": 1 / 4, "macro_accuracy": 1 / 6, "a": 1 / 3, "b": 0, "raw_accuracy": 3 / 4}
    )
    assert found.sizes == {"accuracy": 4, "macro_accuracy": 4, "a": 3, "b": 1, "raw_accuracy": 4}
    assert [item["unscored"] for item in found.items] == [False, False, True, False]
    assert [item["prediction"] for item in found.items] == [" x", " x", None, " y"]
    one = memotrap.score(questions[:1], [[-1, -2]])
    assert set(one.metrics) == {"accuracy"}
    assert memotrap.score([], []).metrics == {"accuracy": 0.0}


def test_under_decoders_as_a_plain_loop(smollm2: Any, tmp_path: Path) -> None:
    """Greedy, and CAD without being told any context."""
    items = benchmarks()["memotrap"].task(written(tmp_path) / "1-proverb-ending.csv").items[:1]
    for name, alpha in (("greedy", 0.0), ("cad:alpha=2", 2.0)):
        found = Asking(*smollm2, parse_spec(name), {}).choose(items)
        for item, scores in zip(items, found, strict=True):
            assert scores == pytest.approx([plainly(*smollm2, item, one, alpha) for one in item.choices], abs=1e-4)


def test_resumed_compared_and_scored_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = tiny("llama", max_position_embeddings=512), ChatTokenizer()
    task = benchmarks()["memotrap"].task(written(tmp_path / "data"))

    def asked(decoder: str, **options: Any) -> dict[str, Any]:
        return run(
            task, Asking(model, tokenizer, parse_spec(decoder), {}, **options), tmp_path / decoder, model_name="m"
        )

    asked("greedy")
    first = asked("cad:alpha=2")
    records = tmp_path / "cad:alpha=2" / "records.jsonl"
    records.write_text(records.read_text().splitlines()[0] + "\n")
    again = asked("cad:alpha=2", batch_size=1, share_prefix=False)
    assert again["metrics"] == first["metrics"]
    assert set(first["metrics"]) == {"accuracy", "macro_accuracy", "proverb-ending", "history", "raw_accuracy"}
    change = compare(read_run(tmp_path / "greedy"), read_run(tmp_path / "cad:alpha=2"))
    assert set(change.changes) == set(first["metrics"])
    assert cli.main(["score", "memotrap", str(tmp_path / "cad:alpha=2"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == first["metrics"]


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = written(tmp_path / "data")
    lines = [
        {"prompt": prompt, "log_probs": {classes[0]: -1.0, classes[1]: -2.0}}
        for rows in FILES.values()
        for prompt, classes, _ in rows
    ]
    answers = tmp_path / "a.jsonl"
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines[::-1]))
    assert cli.main(["score", "memotrap", str(answers), "--data", str(data), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics == pytest.approx({"accuracy": 1 / 3, "macro_accuracy": 1 / 4, "proverb-ending": 1 / 2, "history": 0})
    for changed, message in (
        (lines[:2], "1 of 3 questions have no answer; the first is 'What was the common"),
        ([*lines, lines[0]], 'a.jsonl, line 4: \'Write a quote that ends in the word "heavy"'),
        ([{"log_probs": [-1, -2]}], "1 answers for 3 questions, and no 'prompt' to tell them by"),
        ([*lines[:2], {**lines[2], "log_probs": [-1]}], "a.jsonl, line 3: 'log_probs' is no object"),
    ):
        answers.write_text("".join(json.dumps(line) + "\n" for line in changed))
        assert cli.main(["score", "memotrap", str(answers), "--data", str(data)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


@each(
    ("cells", "message"),
    [
        (["", "[' a', ' b']", "0"], "line 2: the prompt is empty"),
        (["p", "[' a', ' b'", "0"], "line 2: 'classes' is \"[' a', ' b'\"; expected a list of two texts"),
        (["p", "[' a']", "0"], "expected a list of two texts"),
        (["p", "[' a', 1]", "0"], "expected a list of two texts"),
        (["p", "[' a', ' a']", "0"], "expected two endings that differ"),
        (["p", "[' a', '']", "0"], "expected two endings that differ"),
        (["p", "[' a', ' b']", "2"], "'answer_index' is '2'; expected 0 or 1"),
    ],
)
def test_bad_lines(tmp_path: Path, cells: Sequence[str], message: str) -> None:
    path = tmp_path / "m.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", "classes", "answer_index"], cells])
    with pytest.raises(tk.ArgumentError) as raised:
        memotrap.read_questions(path)
    assert message in str(raised.value)


def test_refuses(tmp_path: Path) -> None:
    with pytest.raises(tk.ArgumentError, match=r"holds no \*\.csv; expected a file, or a folder with some"):
        memotrap.read_questions(tmp_path)
    question = Question("a", "p", (" x", " y"), 0)
    for values, message in (([[1.0]], "1 values; expected two"), ([], "0 rows for 1"), ([[float("nan"), 0]], "NaN")):
        with pytest.raises(tk.ArgumentError, match=message):
            memotrap.score([question], values)


@pytest.mark.slow
def test_all_of_it_equals_a_plain_loop(smollm2: Any, shared_data: Path) -> None:
    model, tokenizer = smollm2
    items = benchmarks()["memotrap"].task(shared_data / "data/memotrap").items
    found = Asking(model, tokenizer, parse_spec("greedy"), {}).choose(items)
    for item, scores in zip(items, found, strict=True):
        assert scores == pytest.approx([plainly(model, tokenizer, item, choice) for choice in item.choices], abs=1e-4)
