"""Reading claims: every format in its own words, the merge of labels, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from truthkit.factcheck.claims import LABELS_2, LABELS_3, LABELS_6, Claim, merge_label, read_claims


def write(path: Path, *records: dict[str, Any], as_array: bool = False) -> Path:
    path.write_text(json.dumps(records) if as_array else "\n".join(map(json.dumps, records)))
    return path


RAW = {"event_id": "7.json", "claim": " The sky is green. ", "label": "pants-fire", "explain": "It is blue."}


class TestFormats:
    def test_liar_raw(self, tmp_path: Path) -> None:
        (claim,) = read_claims(write(tmp_path / "val.jsonl", RAW))
        assert claim == Claim("7.json", "The sky is green.", "pants-fire", "It is blue.", None)

    def test_reports_are_evidence(self, tmp_path: Path) -> None:
        reports = [{"content": "Blue, they say. "}, {"content": ""}, {"content": "Also at night?"}]
        (claim,) = read_claims(write(tmp_path / "val.json", {**RAW, "reports": reports}, as_array=True))
        assert claim.evidence == "Blue, they say.\nAlso at night?"

    def test_liar_keeps_quotes(self, tmp_path: Path) -> None:
        """A quote at the start of a statement would merge lines in a CSV reader."""
        lines = [f'{n}.json\thalf-true\t"Claim {n}\tcrime' + "\t" * 10 for n in range(3)]
        (path := tmp_path / "train.tsv").write_text("\n".join(lines) + "\n")
        assert [claim.text for claim in read_claims(path)] == ['"Claim 0', '"Claim 1', '"Claim 2']

    def test_raw_fc_instruction_form(self, tmp_path: Path) -> None:
        record = {
            "prompt": "Below is ... based on your knowledge and the following information: It is blue.\nAll say so. "
            "Evaluate the following assertion: The sky is green. If possible, please also give the reasons. "
            "\n\n### Response:.",
            "chosen": "According to our knowledge and the given information, we think that the claim is False.",
            "rejected": "I don't know.",
        }
        path = write(tmp_path / "rawfc.json", record, as_array=True)
        (claim,) = read_claims(path)
        assert (claim.text, claim.label) == ("The sky is green.", "false")
        assert (claim.explanation, claim.evidence) == ("It is blue.\nAll say so.", None)
        assert read_claims(path, gold_as_evidence=True)[0].evidence == claim.explanation

    def test_own_fields(self, tmp_path: Path) -> None:
        claim = Claim("1", "Water is wet.", "true", "It wets.", "One.\nTwo.")
        assert read_claims(write(tmp_path / "x.jsonl", {**vars(claim), "evidence": ["One.", "Two."]})) == [claim]


class TestMerge:
    def test_by_hand(self) -> None:
        three = {label: merge_label(label) for label in LABELS_6}
        assert list(three.values()) == ["true", "true", "half", "half", "false", "false"]
        assert [merge_label(label, LABELS_2) for label in LABELS_3] == ["true", "false", "false"]
        assert merge_label(" Pants on Fire") == "false"
        assert merge_label("Mostly_True", LABELS_6) == "mostly-true"

    @pytest.mark.parametrize(("label", "labels"), [("half", LABELS_6), ("half", LABELS_2[:1]), ("moon", LABELS_3)])
    def test_refused(self, label: str, labels: tuple[str, ...]) -> None:
        with pytest.raises(tk.ArgumentError):
            merge_label(label, labels)


class TestBadInput:
    @pytest.mark.parametrize(
        ("record", "message"),
        [
            ({**RAW, "label": "blue"}, "line 2: label 'blue' is unknown; expected one of true, mostly-true"),
            ({**RAW, "claim": "  "}, "line 2: the claim is empty"),
            ({"claim": "x"}, "line 2: no 'label'; its fields are claim"),
            ({"label": "true"}, "line 2: no 'claim' or 'text'"),
            ({**RAW, "explain": 3}, "line 2: 'explain' is 3; expected text"),
            ({"prompt": "x", "chosen": "y"}, "line 2: 'prompt' and 'chosen' are not in the instruction form"),
        ],
    )
    def test_records(self, record: dict[str, Any], message: str, tmp_path: Path) -> None:
        with pytest.raises(tk.ArgumentError, match=message):
            read_claims(write(tmp_path / "x.jsonl", RAW, record))

    def test_empty_file(self, tmp_path: Path) -> None:
        for name in ("x.jsonl", "x.tsv"):
            (tmp_path / name).write_text("\n")
            with pytest.raises(tk.ArgumentError, match=rf"{name} has no (claims|records)"):
                read_claims(tmp_path / name)

    def test_missing_column_of_liar(self, tmp_path: Path) -> None:
        (tmp_path / "x.tsv").write_text("1.json\ttrue\tA claim\n")
        with pytest.raises(tk.ArgumentError, match=r"line 1: 3 tab-separated columns; LIAR has 14"):
            read_claims(tmp_path / "x.tsv")

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(tk.NotAvailableError, match=r"no\.json"):
            read_claims(tmp_path / "no.json")


def test_real_files(shared_data: Path) -> None:
    """Counts of data/README.md."""
    folder = shared_data / "data"
    counts = {
        "factcheck/val_joined.jsonl": 1274,
        "factcheck/test_joined.jsonl": 1251,
        "factcheck/rawfc_val.json": 200,
        "factcheck/rawfc_test.json": 200,
        "liar/train.tsv": 10269,
        "liar/valid.tsv": 1284,
    }
    claims = {name: read_claims(folder / name) for name in counts}
    assert {name: len(found) for name, found in claims.items()} == counts
    assert all(claim.explanation for claim in claims["factcheck/val_joined.jsonl"] + claims["factcheck/rawfc_val.json"])
    assert Counter(claim.label for claim in claims["factcheck/rawfc_test.json"]) == {"false": 133, "true": 67}
