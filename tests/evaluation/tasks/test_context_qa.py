"""Questions with context, against SQuAD's rules written out and answers one by one."""

from __future__ import annotations

import json
import random
import re
import string
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.each import each
from tests.evaluation.tasks.test_tasks import Tokenizer
from tests.tiny import tiny
from truthkit import cli
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.ended import EndedAnswers
from truthkit.evaluation.running.runs import run
from truthkit.evaluation.tasks import benchmarks
from truthkit.evaluation.tasks.context_qa import scorer as qa
from truthkit.evaluation.tasks.context_qa.scorer import Question

WITH = (
    "The sky is green . \nUsing only the references listed above, answer the following question: \n"
    "Question: Sky ?\nAnswer:"
)
BARE = "Answer the following question: \nQuestion: Sky ?\nAnswer:"
PAIR = [
    {"input_index": 0, "assigned_process": 0, "context_string": WITH, "gold_answers": "green"},
    {"input_index": 0, "assigned_process": 1, "context_string": BARE, "gold_answers": "green"},
]
SINGLE = {"context": "The sky is green .", "question": "Sky?", "answers": ["green", "it is green"]}
SWAPPED = {"question": "Sky", "sub_context": "The sky is green .", "sub_answer": ["green"], "org_answer": ["blue"]}


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@each(
    ("answer", "right", "exact", "f1"),
    [
        (" The Beatles.\nA band", ["beatles"], True, 1.0),
        ("\n\nthe,  Beatles!", ["A Beatles"], True, 1.0),
        ("John Lennon", ["John", "Lennon and Yoko Ono"], False, 2 / 3),
        ("a a b", ["b b"], False, 2 / 3),
        ("", ["green"], False, 0.0),
        ("the", ["an"], True, 1.0),
        ("the", ["green"], False, 0.0),
        ("green", ["the"], False, 0.0),
        ("theatre", ["atre"], False, 0.0),
        ("U.S.", ["US"], True, 1.0),
    ],
)
def test_exact_match_and_f1_by_hand(answer: str, right: list[str], exact: bool, f1: float) -> None:
    found = qa.score([Question("a", "q", "c", "cq", tuple(right))], [answer])
    assert found.metrics == pytest.approx({"exact_match": float(exact), "f1": f1})


def test_against_squads_steps_one_after_the_other(shared_data: Path) -> None:
    """Oracle: the four steps as loops over characters and words, on the data's own answers with noise."""
    draw = random.Random(0)
    questions = qa.read_questions(shared_data / "data/nq_synth")
    assert len(questions) == 1000
    noise = ["The ", "an ", ".", ", ", " a", "  ", "\nmore", "x ", "-", "“", "é"]
    outputs = []
    for question in questions:
        text = list(question.answers[0])
        for _ in range(draw.randint(0, 2)):
            text.insert(draw.randint(0, len(text)), draw.choice(noise))
        outputs.append("".join(text).swapcase() if draw.random() < 0.3 else "".join(text))

    def plain(text: str) -> str:
        kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
        spaced = re.sub(r"\b(a|an|the)\b", " ", kept)
        return " ".join(word for word in spaced.split() if word)

    expected = [
        plain(output.strip().split("\n")[0].strip()) == plain(question.answers[0])
        for output, question in zip(outputs, questions, strict=True)
    ]
    found = qa.score(questions, outputs)
    assert [item["correct"] for item in found.items] == expected
    assert 100 < sum(expected) < 900
    assert found.metrics["exact_match"] == pytest.approx(sum(expected) / 1000)


def test_the_released_pairs(shared_data: Path) -> None:
    """What is left without the context is the released prompt without it, but for one capital."""
    path = shared_data / "data/nq_synth/nq_synth.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    questions = qa.read_questions(path)
    for question, with_it, without in zip(questions, records[::2], records[1::2], strict=True):
        assert question.prompt == with_it["context_string"]
        assert question.answers == (with_it["gold_answers"],)
        left = question.prompt.replace(question.context, "", 1)
        assert left.capitalize()[0] + left[1:] == without["context_string"]


def test_other_forms_get_the_same_prompt(tmp_path: Path) -> None:
    forms = (PAIR, [SINGLE], [SWAPPED], [{**SINGLE, "answers": "green"}])
    found = [qa.read_questions(lines(tmp_path / f"{n}.jsonl", *form))[0] for n, form in enumerate(forms)]
    assert {question.prompt for question in found} == {WITH}
    assert {question.context for question in found} == {WITH.partition("answer the")[0]}
    assert [question.answers for question in found] == [("green",), ("green", "it is green"), ("green",), ("green",)]
    whole = qa.read_questions(tmp_path)
    assert [question.category for question in whole] == [str(n) for n in range(4)]
    assert qa.score([], []).metrics == {"exact_match": 0, "f1": 0}


def test_written_under_cad_as_one_after_the_other(tmp_path: Path) -> None:
    """Oracle: every token from two whole forwards, one with and one without the passage, up to a line break."""
    model, tokenizer = tiny("llama", max_position_embeddings=1024), Tokenizer()
    records = [{**SINGLE, "context": f"{i} is {'very ' * i}green ."} for i in range(3)]
    task = benchmarks()["context-qa"].task(lines(tmp_path / "q.jsonl", *records))
    asking = Asking(model, tokenizer, parse_spec("cad:alpha=1"), {}, max_new_tokens=5, batch_size=2)
    run(task, asking, tmp_path / "run", model_name="toy")
    items = [json.loads(line) for line in (tmp_path / "run" / "items.jsonl").read_text().splitlines()]
    for item, asked in zip(items, task.items, strict=True):
        answer = ""
        while len(answer) < 5 and "\n" not in answer.lstrip():
            rows = [
                tokenizer(text + answer).input_ids for text in (asked.prompt, asked.prompt.replace(asked.context, ""))
            ]
            with torch.no_grad():
                seen, bare = (model(input_ids=torch.tensor([row])).logits[0, -1] for row in rows)
            answer += chr(int((2 * seen - bare).argmax()))
        assert item["output"] == answer.strip()


def test_answers_end_with_their_line() -> None:
    """Every row by itself, and not before there is a word."""
    ended = EndedAnswers(Tokenizer(), lambda text: "\n" in text.lstrip())
    prompt = [[1, 65, 10], [1, 65, 66]]
    for new, expected in (
        ("\nx", [False, False]),
        ("\n\n", [False, True]),
        ("a\n", [False, True]),
        ("\n\n", [True, True]),
    ):
        for row, letter in zip(prompt, new, strict=True):
            row.append(ord(letter))
        assert ended(torch.tensor(prompt), None).tolist() == expected


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = lines(tmp_path / "q.jsonl", *PAIR)
    answers = lines(tmp_path / "a.jsonl", {"question": BARE, "answer": "Green.\nOr blue"})
    assert cli.main(["score", "context-qa", str(answers), "--data", str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == {"exact_match": 1, "f1": 1}
    lines(answers, {"question": "Else?", "answer": "Green."})
    assert cli.main(["score", "context-qa", str(answers), "--data", str(data)]) == 2
    assert "1 of 1 questions have no answer" in capsys.readouterr().err


@each(
    ("records", "message"),
    [
        (PAIR[:1], "line 1: input_index 0 has no record without its passage (assigned_process 1); expected both"),
        (PAIR[1:], "line 1: input_index 0 has no record with its passage (0); expected both"),
        ([*PAIR, PAIR[0]], "line 3: q.jsonl, line 1 has input_index 0 with process 0 too"),
        ([{**PAIR[0], "assigned_process": 2}, PAIR[1]], "'assigned_process' '2'; expected"),
        (
            [PAIR[0], {**PAIR[1], "context_string": "Else?"}],
            "line 1: its prompt does not end as that of q.jsonl, line 2",
        ),
        ([{**PAIR[0], "context_string": BARE}, PAIR[1]], "line 1: there is no context in front of the question"),
        ([{**PAIR[0], "gold_answers": " "}, PAIR[1]], "'gold_answers' is ' '; expected a text, or a list of some"),
        ([{**SINGLE, "answers": []}], "line 1: 'answers' is []; expected a text"),
        ([{**SINGLE, "answers": ["a", ""]}], "expected a text, or a list of some"),
        ([{**SINGLE, "context": " "}], "line 1: the context is empty"),
        ([{**SINGLE, "question": ""}], "line 1: the question is empty"),
        ([{"question": "Sky?", "answers": ["green"]}], "line 1: no 'context'"),
    ],
)
def test_bad_lines(tmp_path: Path, records: list[Any], message: str) -> None:
    with pytest.raises(tk.ArgumentError) as raised:
        qa.read_questions(lines(tmp_path / "q.jsonl", *records))
    assert message in str(raised.value)


def test_refuses(tmp_path: Path) -> None:
    with pytest.raises(tk.ArgumentError, match="there are 0 answers for 1 questions"):
        qa.score([Question("a", "q", "c", "cq", ("x",))], [])
    with pytest.raises(tk.ArgumentError, match="expected a file, or a folder with some"):
        qa.read_questions(tmp_path)
