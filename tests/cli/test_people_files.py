"""The command line and the readers behind it on files as people have them: right, or one line that says what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from truthkit import cli
from truthkit.evaluation.tasks.mme import scorer as mme
from truthkit.evaluation.tasks.pope import scorer as pope
from truthkit.factcheck.claims import Claim, read_claims
from truthkit.factcheck.overlap import held_out_texts
from truthkit.steering.extraction.pairs import Pair, read_pairs
from truthkit.text.fingerprint import fingerprint
from truthkit.training.amateur_data import read_pairs as read_amateur_data

NESTED = "[" * 20_000


def written(path: Path, *records: Any) -> Path:
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def questions(path: Path, words: Sequence[str] = ("snowboard", "car")) -> Path:
    labels = ("yes", "no")
    rows = [
        {"question_id": i, "image": f"{i}.jpg", "text": f"Is there a {word} in the image?", "label": labels[i % 2]}
        for i, word in enumerate(words)
    ]
    return written(path, *rows)


def test_the_prediction_is_scored_or_asked_for(tmp_path: Path, capsys: Any) -> None:
    """The reference is right everywhere, the prediction half of the time."""
    data = questions(tmp_path / "q.jsonl")
    rows = [{"question_id": i, "answer": right, "prediction": "Yes"} for i, right in enumerate(("yes", "no"))]
    command = ["score", "pope", str(written(tmp_path / "a.jsonl", *rows)), "--data", str(data), "--json"]
    assert cli.main(command) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in ("a.jsonl, line 1", "'answer'", "'prediction'", "--answer-field"))
    for field, accuracy in (("prediction", 0.5), ("answer", 1.0)):
        assert cli.main([*command, "--answer-field", field]) == 0
        assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"] == accuracy


def test_every_reader_asks_which_of_two_fields(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "synonyms.txt").write_text("dog\n")
    truth = written(tmp_path / "gt.json", {"1": ["dog"]})
    caption = written(tmp_path / "c.jsonl", {"image_id": 1, "caption": "A dog.", "text": "A cat."})
    mc = written(
        tmp_path / "mc.json", {"question": "Q?", "mc1_targets": {"A": 1, "B": 0}, "mc2_targets": {"A": 1, "B": 0}}
    )
    answer = written(tmp_path / "a.jsonl", {"question": "Q?", "answer": "A", "response": "B"})
    qa = written(tmp_path / "qa.jsonl", {"question": "Q?", "answer": "It is 2.", "chatgpt_response": "It is 5."})
    asks = written(tmp_path / "asks.jsonl", {"question": "Q?", "prompt": "P?", "answer": "It is 2."})
    claims = written(tmp_path / "cl.jsonl", {"claim": "A.", "text": "B.", "label": "true"})
    train = ["train", "amateur", "--out", str(tmp_path / "out")]
    cases = (
        (
            ["score", "chair", str(caption), "--data", str(truth)],
            "'caption' is 'A dog.' and 'text' is 'A cat.'",
            "--answer-",
        ),
        (["score", "truthfulqa", str(answer), "--data", str(mc)], "'answer' is 'A' and 'response' is 'B'", "--answer-"),
        ([*train, str(qa)], "'answer' is 'It is 2.' and 'chatgpt_response' is 'It is 5.'", "--answer-field"),
        ([*train, str(asks)], "'question' is 'Q?' and 'prompt' is 'P?'", "--prompt-field"),
        (
            ["train", "reflex", "--out", str(tmp_path / "out"), str(claims)],
            "'claim' is 'A.' and 'text' is 'B.'",
            "keep the",
        ),
    )
    for command, fields, way_out in cases:
        assert cli.main(command) == 2
        said = capsys.readouterr().err
        assert fields in said
        assert way_out in said
        assert said.count("\n") == 1


def test_captions_of_one_image(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "synonyms.txt").write_text("dog\n")
    truth = written(tmp_path / "gt.json", {"1": ["dog"]})
    twice = written(tmp_path / "c.jsonl", *[{"image_id": 1, "caption": "A dog."}] * 2)
    assert cli.main(["score", "chair", str(twice), "--data", str(truth)]) == 2
    assert "c.jsonl, line 2: image 1 has a caption at c.jsonl, line 1 already" in capsys.readouterr().err


def test_merged_answers_whose_ids_repeat(tmp_path: Path) -> None:
    """Three categories with the same ids, merged in another order than the questions are read."""
    words = {name: [f"{name} {i}" for i in range(2)] for name in pope.STRATEGIES}
    for name in pope.STRATEGIES:
        questions(tmp_path / f"coco_pope_{name}.json", words[name])
    ask = "Is there a {} in the image?\nAnswer with one word."
    rows = [
        {"question_id": i, "prompt": ask.format(word), "text": f"About {word}"}
        for name in reversed(pope.STRATEGIES)
        for i, word in enumerate(words[name])
    ]
    asked = pope.read_questions(tmp_path)
    found = pope.match(asked, pope.read_answers(written(tmp_path / "merged.jsonl", *rows)))
    assert found == [f"About {word}" for name in pope.STRATEGIES for word in words[name]]
    rows[0]["prompt"] = "Is there a unicorn?"
    with pytest.raises(tk.ArgumentError, match="no answer with question_id 0 is left that was asked"):
        pope.match(asked, pope.read_answers(written(tmp_path / "merged.jsonl", *rows)))


def test_claims(tmp_path: Path) -> None:
    record = {"event_id": "1", "claim": "The sky is green.", "label": "false", "explain": "It is blue by day."}
    claim = Claim("1", "The sky is green.", "false", "It is blue by day.")
    (tmp_path / "one.json").write_text(json.dumps(record, indent=2))
    folder = tmp_path / "raw-fc"
    folder.mkdir()
    for number in (1, 2, 10):
        (folder / f"{number}.json").write_text(json.dumps({**record, "event_id": str(number)}, indent=2))
    (tmp_path / "c.tsv").write_text("event_id\tclaim\tlabel\texplain\n" + "\t".join(record.values()) + "\n")
    assert read_claims(tmp_path / "one.json") == read_claims(tmp_path / "c.tsv") == [claim]
    assert [one.id for one in read_claims(folder)] == ["1", "2", "10"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(tk.ArgumentError, match="folder without claims"):
        read_claims(empty)


def test_blanks_behind_mmes_fields(tmp_path: Path) -> None:
    for name, end in (("answers", "\tYes"), ("data", "")):
        (tmp_path / name).mkdir()
        blank = " " if name == "answers" else ""
        rows = (f"1.jpg{blank}\tIs it {i}?{blank}\tYes{blank}{end}\n" for i in range(2))
        (tmp_path / name / "existence.txt").write_text("".join(rows))
    answered = mme.read_answers(tmp_path / "answers")
    mme.check_complete(mme.read_questions(tmp_path / "data"), [question for question, _ in answered])
    assert mme.score(*map(list, zip(*answered, strict=True))).metrics["existence"] == 200


def test_amateur_data(tmp_path: Path) -> None:
    alpaca = {"instruction": "Say whether it is true.", "input": "0 is even.", "output": "Yes."}
    (example,) = read_amateur_data(written(tmp_path / "alpaca.json", [alpaca]), forms=("plain",))
    assert example.prompt == "Q: Say whether it is true.\n\n0 is even.\nA:"
    judged = [
        {"user_query": f"Q{i}?", "chatgpt_response": f"A{i}.", "hallucination": word}
        for i, word in enumerate(("yes", "No", "NO", " Yes", "no", "YES", True, False))
    ]
    assert [one.answer for one in read_amateur_data(written(tmp_path / "j.jsonl", *judged))] == [
        "A0.",
        "A3.",
        "A5.",
        "A6.",
    ]
    judged[1]["hallucination"] = "maybe"
    with pytest.raises(tk.ArgumentError, match="line 2: 'hallucination' is 'maybe'; expected yes or no"):
        read_amateur_data(written(tmp_path / "j.jsonl", *judged))


def test_pairs(tmp_path: Path) -> None:
    rows = [{"positive": f"I love {i}.", "negative": f"I hate {i}."} for i in range(20)]
    pairs = [Pair(row["positive"], row["negative"]) for row in rows]
    lines = "\ufeff" + "\r\n".join(map(json.dumps, rows))
    (tmp_path / "bom.jsonl").write_bytes(lines.encode())
    (tmp_path / "array.json").write_text(json.dumps(rows, indent=2))
    (tmp_path / "lists.json").write_text(json.dumps([[row["positive"], row["negative"]] for row in rows]))
    (tmp_path / "p.csv").write_text(
        "id,positive,negative\n" + "".join(f"1,{r['positive']},{r['negative']}\n" for r in rows)
    )
    files = [read_pairs(tmp_path / name) for name in ("bom.jsonl", "array.json", "lists.json", "p.csv")]
    assert all(file.pairs == pairs and not file.bad for file in files)
    (tmp_path / "array.json").write_text(json.dumps([rows[0], {"positive": "a"}], indent=2))
    assert list(map(str, read_pairs(tmp_path / "array.json").bad)) == [
        "record 2: the pair has no negative side; give both."
    ]
    (tmp_path / "cut.json").write_text(json.dumps(rows, indent=2)[:-1])
    assert len(read_pairs(tmp_path / "cut.json").bad) == 1
    assert read_pairs(written(tmp_path / "one.jsonl", ["a", "b"])).pairs == [Pair("a", "b")]


def test_held_out_tables(tmp_path: Path) -> None:
    (tmp_path / "TruthfulQA.csv").write_text("Type,Question,Best Answer\nx,Is it?,Yes\n")
    assert held_out_texts(tmp_path / "TruthfulQA.csv") == {fingerprint("Is it?")}


def test_isotropys_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def stop(_model: Any, _processor: Any, texts: list[str], **_: Any) -> None:
        seen.append(texts)
        raise tk.ModelError("enough")

    monkeypatch.setattr("truthkit.activations.isotropy.isotropy", stop)
    monkeypatch.setattr("truthkit.models.load", lambda *_, **__: (None, None))
    (tmp_path / "t.json").write_text('[\n "One.",\n "Two."\n]')
    (tmp_path / "t.csv").write_text("id,text\n1,One.\n2,Two.\n")
    for options in (["--limit", "2"], ["--texts", str(tmp_path / "t.json")], ["--texts", str(tmp_path / "t.csv")]):
        assert cli.main(["isotropy", *options]) == 1
    assert [len(texts) for texts in seen] == [2, 2, 2]
    assert seen[1] == seen[2] == ["One.", "Two."]


def test_nested_and_endless_files_end_every_command_in_one_line(tmp_path: Path, capsys: Any) -> None:
    good = questions(tmp_path / "q.jsonl")
    for number, content in enumerate(
        (NESTED, '{"a": ' + "9" * 5000 + "}", '{"question": [[1]], "claim": {}, "image_id": {}}')
    ):
        bad = tmp_path / f"bad{number}.json"
        bad.write_text(content)
        run = tmp_path / f"run{number}"
        run.mkdir()
        for name in ("summary.json", "items.jsonl", "config.json"):
            (run / name).write_text(content)
        path, out = str(bad), str(tmp_path / "out")
        for command in (
            ["extract", path, "--out", out + ".safetensors"],
            ["train", "amateur", path, "--out", out],
            ["train", "reflex", path, "--out", out],
            ["score", "pope", path, "--data", str(good)],
            ["score", "pope", str(good), "--data", path],
            ["score", "chair", path, "--data", path],
            ["score", "truthfulqa", path, "--data", path],
            ["eval", "mme", "--data", path, "--out", out],
            ["eval", "factcheck", "--data", path, "--out", out],
            ["eval", "open-ended", "--data", path, "--out", out],
            ["pope", path, "--out", out],
            ["compare", str(run), str(run)],
            ["report", str(run), "--out", out + ".html"],
            ["isotropy", "--texts", path],
            ["generate", "--file", path],
        ):
            assert cli.main(command) in (1, 2), command
            *before, last = capsys.readouterr().err.splitlines()
            assert last.startswith("truthkit: error: "), (command, last)
            assert len(last) < 2200
            assert len(before) <= (command[0] == "extract"), before  # which lists the lines that it could not use
