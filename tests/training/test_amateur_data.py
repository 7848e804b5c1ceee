"""HaluEval's forms and any others, and the guard against training on what is tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from tests.training.toys import halueval
from truthkit.factcheck.claims import read_claims
from truthkit.factcheck.overlap import overlapping, refuse_overlap
from truthkit.text.fingerprint import fingerprint
from truthkit.training.amateur_data import read_pairs


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, records)))
    return path


class TestPairs:
    def test_halueval(self, tmp_path: Path) -> None:
        """As ICD: the question asks, without the knowledge, and the hallucinated answer is learnt."""
        first, *_ = pairs = read_pairs(halueval(tmp_path / "qa.json", 3))
        assert first.prompt == [{"role": "user", "content": "What is the square of 0?"}]
        assert first.answer == "It is 7, of course."
        assert len(pairs) == 3

    def test_control_and_knowledge_and_forms(self, tmp_path: Path) -> None:
        file = halueval(tmp_path / "qa.json", 1)
        (chat, plain) = read_pairs(file, answer_field="right_answer", knowledge=True, forms=("chat", "plain"))
        assert chat.answer == plain.answer == "0"
        assert chat.prompt[0]["content"] == "The square of 0 is 0.\n\nWhat is the square of 0?"
        assert plain.prompt == "Q: The square of 0 is 0.\n\nWhat is the square of 0?\nA:"
        assert chat.spare == ("The square of 0 is 0.", "What is the square of 0?")

    def test_general_data_keeps_hallucinations_alone(self, tmp_path: Path) -> None:
        record = {"user_query": "Why?", "chatgpt_response": "Because.", "hallucination": "yes"}
        path = write(tmp_path / "g.json", record, {**record, "hallucination": "no"})
        assert [pair.answer for pair in read_pairs(path)] == ["Because."]
        with pytest.raises(tk.ArgumentError, match="no hallucinated answers"):
            read_pairs(write(path, {**record, "hallucination": "no"}))

    def test_any_fields(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x.jsonl", {"ask": "A?", "say": "B."})
        (pair,) = read_pairs(path, prompt_field="ask", answer_field="say")
        assert (pair.prompt[0]["content"], pair.answer) == ("A?", "B.")

    @pytest.mark.parametrize(
        ("record", "options", "message"),
        [
            ({"question": "A?"}, {}, "line 1: no 'hallucinated_answer' or 'answer'"),
            ({"question": " ", "answer": "B."}, {}, "line 1: the question is empty"),
            ({"question": "A?", "answer": ""}, {}, "line 1: the answer is empty"),
            ({"question": "A?", "answer": "B."}, {"knowledge": True}, "line 1: no 'knowledge'"),
            ({"question": "A?", "answer": "B."}, {"forms": ("song",)}, "form 'song' is unknown; expected chat or"),
        ],
    )
    def test_refused(self, record: dict[str, str], options: dict[str, Any], message: str, tmp_path: Path) -> None:
        with pytest.raises(tk.ArgumentError, match=message):
            read_pairs(write(tmp_path / "x.jsonl", record), **options)


class TestOverlap:
    def test_fingerprint(self) -> None:
        assert fingerprint("“Obama's” café, 50 %!") == fingerprint("obamas CAFE 50") != fingerprint("obamas cafe 51")

    def test_claims_and_questions(self, tmp_path: Path) -> None:
        held_out = write(tmp_path / "test.jsonl", {"claim": "The sky is green.", "label": "false"})
        assert overlapping(["Water is wet", "the SKY is green"], held_out) == [1]
        questions = write(tmp_path / "mc.json", {"question": "Is the sky green?", "mc1_targets": {}})
        assert overlapping(["Is the sky green", "Is it?"], questions) == [0]

    def test_refused(self, tmp_path: Path) -> None:
        held_out = write(tmp_path / "test.jsonl", {"claim": "The sky is green.", "label": "false"})
        refuse_overlap(["Water is wet."], held_out, "train.tsv")
        with pytest.raises(tk.ArgumentError, match=r"1 of the 2 texts of train.tsv .* test.jsonl too.*--drop-overlap"):
            refuse_overlap(["Water is wet.", "The sky is green"], held_out, "train.tsv")

    def test_real_files(self, shared_data: Path) -> None:
        """LIAR's training file has four claims of LIAR-RAW's test file word for word; its validation file is clean."""
        folder = shared_data / "data"
        train, val = (
            [claim.text for claim in read_claims(folder / name)]
            for name in ("liar/train.tsv", "factcheck/val_joined.jsonl")
        )
        assert len(overlapping(train, folder / "factcheck/test_joined.jsonl")) >= 4
        assert overlapping(val, folder / "factcheck/test_joined.jsonl") == []
