"""REFLEX's fine-tuning examples: each claim as one or several role-play dialogues."""

from __future__ import annotations

from collections.abc import Sequence

from truthkit.errors import ArgumentError
from truthkit.factcheck.claims import LABELS_3, Claim
from truthkit.factcheck.dialogue import FORMATS, dialogue
from truthkit.training.chat import Example


def reflex_examples(
    claims: Sequence[Claim], *, formats: Sequence[str] = ("verdict",), labels: Sequence[str] = LABELS_3
) -> list[Example]:
    """The dialogues of `claims` in each of `formats`; the evidence may be cut to fit, then the claim, never the answer.

    Args:
        claims: with labels among `labels`.
        formats: names of `FORMATS`. A claim takes part in those for which it has the explanation and the evidence; one
            that takes part in none is left out.
        labels: the verdicts to choose from.

    Raises:
        ArgumentError: an unknown format, a label that is none of `labels`, or a format for which no claim has what it
            needs.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ArgumentError(f"format {unknown[0]!r} is unknown; expected some of {', '.join(FORMATS)}.")
    examples = []
    for name in formats:
        explain, evidence = FORMATS[name]
        fitting = [claim for claim in claims if (claim.explanation or not explain) and (claim.evidence or not evidence)]
        if not fitting:
            lacking = " and ".join(
                what for what, needed in (("explanation", explain), ("evidence", evidence)) if needed
            )
            raise ArgumentError(f"format {name!r} needs {lacking}, which none of the {len(claims)} claims has.")
        for claim in fitting:
            *prompt, answer = dialogue(claim, explain=explain, evidence=evidence, labels=labels)
            spare = (claim.evidence, claim.text) if evidence and claim.evidence else (claim.text,)
            examples.append(Example(prompt, answer["content"], spare, f"claim {claim.id!r} ({name})"))
    return examples
