"""`truthkit detect` on a tiny model. Oracle: `tk.detect`, answer by answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import truthkit as tk
from tests.tiny import tiny
from tests.tiny_vlm import toy_tokenizer
from truthkit.cli import detect as command
from truthkit.cli import main
from truthkit.detection.heat import Heat, page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, and answers to judge in a file."""
    tiny("llama", eos_token_id=2).save_pretrained(tmp_path / "model")
    toy_tokenizer().save_pretrained(tmp_path / "model")
    lines = [{"prompt": f"Q{n}?", "answer": f"It is {n}.", "id": n} for n in range(5)] + [{"question": "And?"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_file_is_scored_and_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_AT_A_TIME", 2)
    words = ["detect", str(folder / "in.jsonl"), "--model", str(folder / "model"), "--max-new-tokens", "3"]
    words += ["--out", str(folder / "out.jsonl"), "--page", str(folder / "page.html")]
    usual, calls = command._score, []

    def stops(*args: Any) -> Any:
        calls.append(len(args[3]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return usual(*args)

    monkeypatch.setattr(command, "_score", stops)
    assert main(words) == 130
    assert not (folder / "out.jsonl").exists()
    assert main(words) == 0
    assert calls == [2, 2, 2, 2]  # the first two were kept
    assert not (folder / "out.jsonl.partial").exists()

    model, tokenizer = tk.load(str(folder / "model"))
    found = read(folder / "out.jsonl")
    assert [line.get("id") for line in found] == [0, 1, 2, 3, 4, None]
    for line in found[:5]:
        (one,) = tk.detect(model, tokenizer, line["prompt"], line["answer"])
        assert line["score"] == pytest.approx(one.score, abs=1e-4)
        assert [line["answer"][start:stop] for start, stop, _ in line["tokens"]] == ["", *line["answer"]]
    assert found[5]["answer"] == tk.detect(model, tokenizer, "And?", max_new_tokens=3)[0].answer
    assert_said(folder / "page.html")


def assert_said(path: Path) -> None:
    """The page names method and model, and its legend the scale with its unit."""
    page = path.read_text()
    assert 'style="--heat:' in page
    assert "<dt>method</dt><dd>mean_log_prob</dd>" in page
    assert "between the 5th and the 95th percentile" in page
    assert re.search(r"[\d.]+ nats</span></div>", page)
    assert "prefers-color-scheme: dark" in page
    assert "<script" not in page


def test_what_was_typed_is_checked_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.jsonl").write_text('{"prompt": "a", "answer": " "}\n')
    cases = [
        ([], "give a FILE of prompts and answers, or one --prompt"),
        ([str(folder / "in.jsonl"), "--answer", "b"], "--answer goes with --prompt"),
        (["--prompt", "a", "--method", "lookbak"], "did you mean 'lookback'"),
        (["--prompt", "a", "--out", str(folder / "x.csv")], "expected a .jsonl file"),
        ([str(folder / "bad.jsonl")], "'answer' is ' '; expected text"),
        ([str(folder / "none.jsonl")], "there is no such file"),
    ]
    for words, message in cases:
        assert main(["detect", *words]) in (1, 2)
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


def test_a_page_holds_every_character_and_no_markup_of_answers() -> None:
    line = {"prompt": "<i>", "answer": "a <b>c", "score": 1.0, "tokens": [[0, 1, 0.0], [2, 5, 2.0]]}
    pieces = list(Heat([line]).pieces(line))
    assert "".join(piece.text for piece in pieces) == line["answer"]
    assert [piece.score for piece in pieces] == [0.0, None, 2.0, None]
    assert [piece.shade for piece in pieces] == [0.0, 0.0, 1.0, 0.0]
    whole = page([{**line, "tokens": []}], "t")
    assert "tokens have no scores" in whole
    assert 'class="bar"' not in whole
    text = page([line, {**line, "tokens": []}], "t")
    assert "<b>" not in text
    assert "&lt;b&gt;" in text
