"""The role-play dialogue, word by word."""

from __future__ import annotations

import pytest

import truthkit as tk
from truthkit.factcheck.claims import LABELS_3, LABELS_6, Claim
from truthkit.factcheck.dialogue import FORMATS, dialogue
from truthkit.factcheck.examples import reflex_examples

CLAIM = Claim("7", "The sky is green.", "false", "It is blue.", "Look up.")
BARE = Claim("8", "Water is wet.", "true")


def test_verdict_comes_first() -> None:
    system, user, assistant = dialogue(CLAIM, explain=True, evidence=True, labels=LABELS_3)
    assert system["content"].endswith("Possible verdicts: true, half, false.")
    assert user["content"] == ("Claim: The sky is green.\n\nEvidence: Look up.\n\nGive your verdict, then explain it.")
    assert assistant == {"role": "assistant", "content": "Verdict: false\nExplanation: It is blue."}


def test_four_formats() -> None:
    seen = {name: dialogue(CLAIM, explain=explain, evidence=evidence) for name, (explain, evidence) in FORMATS.items()}
    assert {name: "Explanation: " in turns[2]["content"] for name, turns in seen.items()} == {
        "verdict": False,
        "explained": True,
        "evidence-verdict": False,
        "evidence-explained": True,
    }
    assert [name for name, turns in seen.items() if "Look up." in turns[1]["content"]] == list(FORMATS)[2:]


def test_prompt_is_the_same_without_the_answer() -> None:
    turns = dialogue(CLAIM, explain=True, evidence=False, labels=LABELS_6)
    assert dialogue(BARE, explain=True, evidence=False, answer=False)[1]["content"].startswith("Claim: Water")
    assert dialogue(CLAIM, explain=True, evidence=False, labels=LABELS_6, answer=False) == turns[:2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"explain": True, "evidence": False}, "claim '8' has no explanation"),
        ({"explain": False, "evidence": True}, "claim '8' has no evidence"),
        ({"explain": False, "evidence": False, "labels": ("half", "false")}, "label 'true'; expected one of half, fal"),
    ],
)
def test_refused(options: dict[str, bool], message: str) -> None:
    with pytest.raises(tk.ArgumentError, match=message):
        dialogue(BARE, **options)


def test_empty_explanation_is_refused() -> None:
    with pytest.raises(tk.ArgumentError, match="claim '9' has no explanation"):
        dialogue(Claim("9", "x", "true", "  "), explain=True, evidence=False)


class TestExamples:
    def test_each_claim_where_it_has_what_is_needed(self) -> None:
        examples = reflex_examples([CLAIM, BARE], formats=("verdict", "explained", "evidence-verdict"))
        assert [example.name for example in examples] == [
            "claim '7' (verdict)",
            "claim '8' (verdict)",
            "claim '7' (explained)",
            "claim '7' (evidence-verdict)",
        ]
        assert examples[3].spare == ("Look up.", "The sky is green.")

    def test_refused(self) -> None:
        with pytest.raises(tk.ArgumentError, match="format 'story' is unknown"):
            reflex_examples([CLAIM], formats=("story",))
        with pytest.raises(tk.ArgumentError, match="needs explanation and evidence, which none of the 1 claims has"):
            reflex_examples([BARE], formats=("evidence-explained",))
