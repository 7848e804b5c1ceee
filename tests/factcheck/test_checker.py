"""`FactChecker` and `truthkit check`: the pieces, each tested elsewhere, put together by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import truthkit as tk
from tests.activations.oracle import WHERE, steered_tokens
from tests.factcheck.cases import ChatTokenizer, base_of, label_score, prompt_ids, toy_claims, tuned
from tests.tiny import tiny
from truthkit.cli import main
from truthkit.factcheck.claims import LABELS_3, Claim
from truthkit.factcheck.cleaning import Cleaning, clean
from truthkit.factcheck.dialogue import dialogue
from truthkit.factcheck.guide import Guide
from truthkit.steering.vector import SteeringVector

CLAIMS = toy_claims(3)
STYLE = SteeringVector({1: 0.3 * torch.randn(48, generator=torch.Generator().manual_seed(5))}, 4)
EAGER = Cleaning(window=2, density=0.5, shortest=1, overlap=0.1, keep_one=False)


def test_a_check_by_hand() -> None:
    model, tokenizer = tuned(), ChatTokenizer()
    checker = tk.FactChecker(
        model, tokenizer, vectors={"style": Guide(STYLE, 2.0)}, cleaning=EAGER, max_new_tokens=12, token_budget=700
    )
    texts = [claim.text for claim in CLAIMS]
    found = checker.check_all(texts)
    add = [(1, lambda h: h + 2.0 * STYLE[1], WHERE["generated"])]
    for claim, one in zip(CLAIMS, found, strict=True):
        prompt = prompt_ids(claim)
        scores = torch.tensor([label_score(model, prompt, label, add) for label in LABELS_3]).softmax(0)
        assert list(one.probabilities.values()) == pytest.approx(scores.tolist(), abs=1e-4)
        assert one.verdict == LABELS_3[int(scores.argmax())]
        head = f"Verdict: {one.verdict}\nExplanation:"
        begun, asked = [*prompt, *map(ord, head)], len(prompt)
        new = steered_tokens(base_of(model), begun, {1: 2.0 * STYLE[1]}, lambda _p, n, a=asked: range(a, n), 12)
        assert one.explanation == tokenizer.decode(new, skip_special_tokens=True).strip()
        if one.explanation:
            messages = dialogue(claim, explain=True, evidence=False, labels=LABELS_3, answer=False)
            expected = clean(model, tokenizer, messages, head + " ", one.explanation, STYLE, layer=1, how=EAGER)
            assert (one.cleaned, one.tokens, one.dropped) == (expected.text, expected.tokens, expected.dropped)
        json.dumps(one.as_dict())
    assert any(one.dropped for one in found)
    alone = checker.check(texts[1])
    assert alone.probabilities == pytest.approx(found[1].probabilities, abs=1e-5)
    assert replace(alone, probabilities=found[1].probabilities) == found[1]


def test_evidence_goes_into_the_prompt() -> None:
    model = tuned()
    checker = tk.FactChecker(model, ChatTokenizer(), explain=False)
    with_evidence, without = checker.check_all(["a claim", "a claim"], ["it is known", " "])
    assert (with_evidence.evidence, without.evidence) == ("it is known", None)
    assert with_evidence.probabilities != without.probabilities
    assert with_evidence.explanation == without.cleaned == ""
    own = checker.check_all([Claim("x", "a claim", "true", evidence="it is known")])[0]
    assert own.probabilities == pytest.approx(with_evidence.probabilities, abs=1e-5)
    assert own == checker.check("a claim", "it is known")


def test_without_a_vector_nothing_is_dropped() -> None:
    one = tk.FactChecker(tuned(), ChatTokenizer(), max_new_tokens=5).check("a claim")
    assert one.cleaned == one.explanation
    assert not one.tokens


def test_an_adapter_from_its_folder(tmp_path: Path) -> None:
    model = tuned()
    model.save_pretrained(tmp_path / "adapter")
    expected = tk.FactChecker(model, ChatTokenizer(), explain=False).check("a claim")
    fresh = tiny("llama", max_position_embeddings=1024)
    with pytest.raises(tk.NotAvailableError, match="adapter"):
        tk.FactChecker(fresh, ChatTokenizer(), adapter=tmp_path)
    found = tk.FactChecker(fresh, ChatTokenizer(), adapter=tmp_path / "adapter", explain=False).check("a claim")
    assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-5)


def test_bad_input() -> None:
    model, tokenizer = tuned(), ChatTokenizer()
    checker = tk.FactChecker(model, tokenizer)
    wrong: tuple[Any, ...] = ([], "a claim")
    for claims in wrong:
        with pytest.raises(tk.ArgumentError, match="a list of at least one claim"):
            checker.check_all(claims)
    with pytest.raises(tk.ArgumentError, match=r"claims\[1\] is empty"):
        checker.check_all(["a", " "])
    with pytest.raises(tk.ArgumentError, match="evidence has 1 entries for 2 claims"):
        checker.check_all(["a", "b"], ["c"])
    with pytest.raises(tk.ArgumentError, match=r"prompts\[0\] with its verdict has \d+ tokens.*shorten the"):
        checker.check("x" * 1000)
    with pytest.raises(tk.ArgumentError, match="does not say which layer"):
        tk.FactChecker(model, tokenizer, vectors=[SteeringVector({0: torch.ones(48), 1: torch.ones(48)}, 4)])
    with pytest.raises(tk.ModelError, match="8 features"):
        tk.FactChecker(model, tokenizer, vectors=[SteeringVector({0: torch.ones(8)}, 4)])


@pytest.fixture
def toy_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truthkit.models.load", lambda *_args, **_options: (tuned(), ChatTokenizer()))


@pytest.mark.usefixtures("toy_load")
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Guide(STYLE, 2.0).save(tmp_path / "style.safetensors")
    claims = ["a claim", "another"]
    words = ["check", *claims, "--style", str(tmp_path / "style.safetensors"), "--max-new-tokens", "6"]
    assert main([*words, "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    checker = tk.FactChecker(tuned(), ChatTokenizer(), vectors={"style": Guide(STYLE, 2.0)}, max_new_tokens=6)
    for one, expected in zip(found, checker.check_all(claims), strict=True):
        assert one["verdict"] == expected.verdict
        assert one["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
        assert one["explanation"] == expected.explanation
        assert len(one["tokens"]) == len(expected.tokens)
    assert main([*words, "--no-explanation"]) == 0
    shown = capsys.readouterr().out
    assert "a claim\n" in shown
    assert f"{found[1]['verdict']}  (" in shown
    other = [*words[:3], "--style", f"{tmp_path / 'style.safetensors'}:0", "--no-explanation", "--json"]
    assert main(other) == 0
    bare = tk.FactChecker(tuned(), ChatTokenizer(), explain=False).check("a claim")
    assert json.loads(capsys.readouterr().out)[0]["probabilities"] == pytest.approx(bare.probabilities, abs=1e-5)


@pytest.mark.usefixtures("toy_load")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is no claim; pass one in quotes"),
        (["a", "--evidence", " "], "--evidence is empty"),
        (["a", "--labels", "true"], "two or more different label words"),
        (["a", "--style", "v.safetensors:1,layers=3"], "has options"),
        (["x" * 1000], "room for 1024"),
    ],
)
def test_bad_arguments_of_the_command(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *words]) == 2
    assert message in capsys.readouterr().err
