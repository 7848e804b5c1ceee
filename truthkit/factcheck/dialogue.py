"""REFLEX's role-play dialogue: a user who brings a claim, and a fact-checker who answers with the verdict first.

The paper has one user turn and one assistant turn, verdict before explanation, in four formats: claim or claim with
evidence, to verdict or to verdict with explanation. Its wording is not public, so every word here is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from truthkit.errors import ArgumentError
from truthkit.factcheck.claims import LABELS_3, Claim

VERDICT = "Verdict:"
"""What the assistant's turn begins with; a space and the label follow. Score label words after this."""

EXPLANATION = "Explanation:"
"""What stands before the explanation, on the line after the verdict."""

ROLE = (
    "You are an experienced fact-checker. A user brings you a claim, and you judge how true it is. "
    "Possible verdicts: {labels}."
)
"""The system message."""

FORMATS: dict[str, tuple[bool, bool]] = {
    "verdict": (False, False),
    "explained": (True, False),
    "evidence-verdict": (False, True),
    "evidence-explained": (True, True),
}
"""The four formats by name: whether the explanation is asked for, and whether the evidence is shown."""


@dataclass(frozen=True)
class Form:
    """How claims are put to the model: one of the four formats, and the labels.

    Attributes:
        labels: the verdicts to choose from.
        explain: ask for an explanation.
        evidence: show the evidence.
    """

    labels: tuple[str, ...] = LABELS_3
    explain: bool = True
    evidence: bool = False

    def prompt(self, claim: Claim) -> list[dict[str, str]]:
        """What is asked."""
        return dialogue(claim, explain=self.explain, evidence=self.evidence, labels=self.labels, answer=False)

    def check(self, claims: Sequence[Claim]) -> None:
        """Raise unless there are claims and all have labels of this form.

        Raises:
            ArgumentError: there are none, or one has another label.
        """
        if not claims:
            raise ArgumentError("claims is empty; give at least one.")
        for number, claim in enumerate(claims):
            if claim.label not in self.labels:
                raise ArgumentError(
                    f"claims[{number}] has the label {claim.label!r}; expected one of {', '.join(self.labels)}. "
                    "read_claims(path, labels=...) merges labels."
                )


def dialogue(
    claim: Claim,
    *,
    explain: bool,
    evidence: bool,
    labels: Sequence[str] = LABELS_3,
    answer: bool = True,
) -> list[dict[str, str]]:
    """The chat messages of one example: system, user and, with `answer`, assistant.

    Args:
        claim: the claim; its label must be one of `labels`, where it is answered.
        explain: ask for an explanation after the verdict.
        evidence: show the claim's evidence.
        labels: the verdicts to choose from, in the order in which they are named.
        answer: whether the assistant's turn is there; False gives the prompt.

    Raises:
        ArgumentError: the claim lacks what is asked for, or its label is none of `labels`.
    """
    parts = [f"Claim: {claim.text}"]
    if evidence:
        if not (claim.evidence and claim.evidence.strip()):
            raise ArgumentError(f"claim {claim.id!r} has no evidence; use a format without, or give it some.")
        parts.append(f"Evidence: {claim.evidence}")
    parts.append("Give your verdict, then explain it." if explain else "Give your verdict.")
    messages = [
        {"role": "system", "content": ROLE.format(labels=", ".join(labels))},
        {"role": "user", "content": "\n\n".join(parts)},
    ]
    if answer:
        messages.append({"role": "assistant", "content": _answer(claim, explain, labels)})
    return messages


def _answer(claim: Claim, explain: bool, labels: Sequence[str]) -> str:
    if claim.label not in labels:
        raise ArgumentError(f"claim {claim.id!r} has the label {claim.label!r}; expected one of {', '.join(labels)}.")
    if not explain:
        return f"{VERDICT} {claim.label}"
    if not (claim.explanation and claim.explanation.strip()):
        raise ArgumentError(f"claim {claim.id!r} has no explanation; use a format without, or give it one.")
    return answer_head(claim.label) + claim.explanation.strip()


def answer_head(label: str) -> str:
    """What an explained answer says before the explanation."""
    return f"{VERDICT} {label}\n{EXPLANATION} "
