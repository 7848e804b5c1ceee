"""What a model and its fine-tuned form disagree on: the quadrants of REFLEX (2511.20233).

The backbone B and the fine-tuned model F judge the same training claims. In quadrant Q1 both are right, in Q2 only F
("reasoning gain"), in Q3 none, in Q4 only B ("knowledge loss").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from truthkit.errors import ArgumentError
from truthkit.factcheck.claims import Claim
from truthkit.factcheck.dialogue import Form
from truthkit.factcheck.verdicts import Verdict, VerdictScorer

QUADRANTS = {"Q1": (True, True), "Q2": (False, True), "Q3": (False, False), "Q4": (True, False)}
"""Whether the backbone and the fine-tuned model are right."""


@dataclass(frozen=True)
class Disagreement:
    """The verdicts of backbone and fine-tuned model on the same claims, and what they make of each claim.

    Attributes:
        claims: the claims.
        backbone, tuned: the two models' verdicts.
    """

    claims: tuple[Claim, ...]
    backbone: tuple[Verdict, ...]
    tuned: tuple[Verdict, ...]

    def __post_init__(self) -> None:
        if not len(self.claims) == len(self.backbone) == len(self.tuned) or not self.claims:
            raise ArgumentError(
                f"there are {len(self.backbone)} and {len(self.tuned)} verdicts for {len(self.claims)} claims; "
                "expected one of each model for every claim."
            )

    def of(self, quadrant: str) -> list[int]:
        """The numbers of a quadrant's claims."""
        if quadrant not in QUADRANTS:
            raise ArgumentError(f"quadrant is {quadrant!r}; expected one of {', '.join(QUADRANTS)}.")
        return [i for i, found in enumerate(self.quadrants) if found == quadrant]

    @property
    def quadrants(self) -> list[str]:
        """Each claim's quadrant."""
        names = {right: name for name, right in QUADRANTS.items()}
        judged = zip(self.claims, self.backbone, self.tuned, strict=True)
        return [names[b.label == claim.label, f.label == claim.label] for claim, b, f in judged]

    def counts(self) -> dict[str, int]:
        """How many claims each quadrant has."""
        found = self.quadrants
        return {name: found.count(name) for name in QUADRANTS}

    def wrong(self, number: int) -> str:
        """The verdict to contrast the gold one with: F's where F is wrong, else B's, else F's runner-up."""
        gold, tuned = self.claims[number].label, self.tuned[number]
        for verdict in (tuned, self.backbone[number]):
            if verdict.label != gold:
                return verdict.label
        return max((label for label in tuned.probabilities if label != gold), key=tuned.probabilities.__getitem__)


@contextmanager
def as_backbone(model: Any, against: Any = "base") -> Iterator[Any]:
    """The backbone of a fine-tuned model.

    Args:
        model: the fine-tuned model.
        against: "base" is `model` with its adapters off; or another model with the same tokenizer.

    Raises:
        ArgumentError: "base", and the model has no adapter.
    """
    if not isinstance(against, str):
        yield against
        return
    if against != "base" or not hasattr(model, "disable_adapter"):
        raise ArgumentError(
            f"against={against!r}; expected a model, or 'base' for a PEFT model, whose adapters can be switched off."
        )
    with model.disable_adapter():
        yield model


def disagreement(
    model: Any,
    processor: Any,
    claims: Sequence[Claim],
    form: Form | None = None,
    *,
    against: Any = "base",
    bias: tuple[Sequence[float] | None, Sequence[float] | None] = (None, None),
    token_budget: int = 2048,
) -> Disagreement:
    """Judge training claims with the backbone and with the fine-tuned model, both by likelihood.

    Args:
        model: the fine-tuned model.
        processor: its tokenizer or processor.
        claims: claims that the fine-tuning may have seen, and the test has not.
        form: labels and format.
        against: the backbone; see `as_backbone`.
        bias: of the labels' scores, for backbone and fine-tuned model. A backbone that has one verdict for everything
            knows nothing that could be lost; `label_bias` evens it out. None is the paper's way.
        token_budget: how many tokens, padding included, run in one forward.

    Raises:
        ArgumentError: no claims, an unknown label, or a claim that is too long.
    """
    form = form or Form()
    form.check(claims)
    prompts = [form.prompt(claim) for claim in claims]

    def judge(by: Any, shift: Sequence[float] | None) -> tuple[Verdict, ...]:
        scorer = VerdictScorer(by, processor, form.labels, token_budget=token_budget)
        return tuple(scorer.verdicts(prompts, bias=shift))

    with as_backbone(model, against) as backbone:
        before = judge(backbone, bias[0])
    return Disagreement(tuple(claims), before, judge(model, bias[1]))


def refinement_claims(found: Disagreement) -> list[Claim]:
    """The claims of Q2 and Q4, in their order: what self-refinement trains on."""
    return [claim for claim, name in zip(found.claims, found.quadrants, strict=True) if name in ("Q2", "Q4")]
