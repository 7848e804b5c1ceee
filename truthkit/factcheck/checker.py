"""Claims in, verdicts with explanations out: `FactChecker`, REFLEX's guided inference behind one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from truthkit.errors import ArgumentError
from truthkit.factcheck.claims import LABELS_3, Claim
from truthkit.factcheck.cleaning import Cleaned, Cleaning, Dropped, Token, clean
from truthkit.factcheck.dialogue import Form, answer_head
from truthkit.factcheck.explanations import explanations
from truthkit.factcheck.guide import Guide, as_guide
from truthkit.factcheck.verdicts import Verdict, VerdictScorer
from truthkit.models.adapter import with_adapter
from truthkit.steering.vector import SteeringVector


@dataclass(frozen=True)
class Check:
    """What came out for one claim.

    Attributes:
        claim: the claim.
        evidence: what was given with it.
        verdict: the most probable label.
        probabilities: of every label.
        explanation: what the model said; empty where none was asked for, or it said nothing.
        cleaned: the explanation without its noisy sentences.
        tokens: every token of the explanation with its cosine to the style vector, and whether it was dropped; empty
            where there is no vector to clean by.
        dropped: the sentences that were dropped.
    """

    claim: str
    verdict: str
    probabilities: dict[str, float]
    evidence: str | None = None
    explanation: str = ""
    cleaned: str = ""
    tokens: tuple[Token, ...] = ()
    dropped: tuple[Dropped, ...] = ()

    @property
    def probability(self) -> float:
        """That of the verdict."""
        return self.probabilities[self.verdict]

    def as_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "claim": self.claim,
            "evidence": self.evidence,
            "verdict": self.verdict,
            "probability": self.probability,
            "probabilities": self.probabilities,
            "explanation": self.explanation,
            "cleaned": self.cleaned,
            "dropped": [vars(one) for one in self.dropped],
            "tokens": [token.as_dict() for token in self.tokens],
        }


class FactChecker:
    """Verdicts by likelihood over label words, explanations at temperature 0, both under guidance.

    Args:
        model: a text or image-text model.
        processor: its tokenizer or processor.
        vectors: style and substance, or any others, in the order in which they act: a mapping from name to vector, or a
            sequence. Each is a `Guide`, or a `SteeringVector` whose file says which layer and strength were chosen.
        adapter: a PEFT adapter's folder or hub id; None takes the model as it is.
        labels: the verdicts to choose from, as in training.
        explain: ask for explanations.
        clean_by: the vector (of one layer) to clean explanations by; None is the one called "style", or else the
            first; where there is none, explanations stay as they are.
        cleaning: when a sentence is noise.
        bias: of the labels' scores; see `truthkit.factcheck.verdicts.label_bias`.
        max_new_tokens: the longest explanation.
        token_budget: how many tokens, padding included, run in one batch.

    Raises:
        ArgumentError: a vector without a choice of layer, or labels that cannot be scored.
        ModelError: a vector or the adapter does not fit the model.
        NotAvailableError: there is no such adapter.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        vectors: Mapping[str, Guide | SteeringVector] | Sequence[Guide | SteeringVector] = (),
        adapter: str | PathLike[str] | None = None,
        labels: Sequence[str] = LABELS_3,
        explain: bool = True,
        clean_by: Guide | SteeringVector | None = None,
        cleaning: Cleaning | None = None,
        bias: Sequence[float] | None = None,
        max_new_tokens: int = 160,
        token_budget: int = 2048,
    ):
        self.model = model if adapter is None else with_adapter(model, adapter)
        self.processor, self.bias = processor, bias
        named = vectors if isinstance(vectors, Mapping) else dict(enumerate(vectors))
        self.guides = {name: as_guide(vector) for name, vector in named.items()}
        for guide in self.guides.values():
            guide.vector.check_model(self.model, allow_other_model=True)
        self.form = Form(tuple(labels), explain=explain)
        self.cleaning = cleaning or Cleaning()
        chosen = clean_by if clean_by is not None else self.guides.get("style", next(iter(self.guides.values()), None))
        self._clean_by = chosen.vector if isinstance(chosen, Guide) else chosen
        self._max_new_tokens, self._token_budget = max_new_tokens, token_budget
        self._scorer = VerdictScorer(self.model, processor, self.form.labels, token_budget=token_budget)

    def check(self, claim: str, evidence: str | None = None) -> Check:
        """Check one claim.

        Raises:
            ArgumentError: the claim is empty, or does not fit into the model's context.
        """
        return self.check_all([claim], [evidence])[0]

    def check_all(self, claims: Sequence[str | Claim], evidence: Sequence[str | None] | None = None) -> list[Check]:
        """Check many claims, in batches; the results are in their order.

        Args:
            claims: texts, or `Claim`s, whose own evidence is then used.
            evidence: passages for each claim, or None for some.

        Raises:
            ArgumentError: as `check`, naming the claim; or not as much evidence as claims.
        """
        asked = self._claims(claims, evidence)
        prompts = [replace(self.form, evidence=claim.evidence is not None).prompt(claim) for claim in asked]
        guides = list(self.guides.values())
        verdicts = self._scorer.verdicts(prompts, guides=guides, bias=self.bias)
        if not self.form.explain:
            return [_check(claim, verdict) for claim, verdict in zip(asked, verdicts, strict=True)]
        said = explanations(
            self.model,
            self.processor,
            prompts,
            [verdict.label for verdict in verdicts],
            guides=guides,
            max_new_tokens=self._max_new_tokens,
            token_budget=self._token_budget,
        )
        return [
            _check(claim, verdict, self._cleaned(prompt, verdict.label, text))
            for claim, verdict, prompt, text in zip(asked, verdicts, prompts, said, strict=True)
        ]

    def _claims(self, claims: Sequence[str | Claim], evidence: Sequence[str | None] | None) -> list[Claim]:
        if isinstance(claims, str) or not claims:
            raise ArgumentError(f"claims is {claims!r}; expected a list of at least one claim.")
        if evidence is not None and len(evidence) != len(claims):
            raise ArgumentError(f"evidence has {len(evidence)} entries for {len(claims)} claims; give one for each.")
        asked = []
        for number, claim in enumerate(claims):
            one = Claim(str(number), claim, "") if isinstance(claim, str) else claim
            if not one.text.strip():
                raise ArgumentError(f"claims[{number}] is empty; give a sentence to check.")
            given = one.evidence if evidence is None else evidence[number]
            asked.append(replace(one, evidence=given if given and given.strip() else None))
        return asked

    def _cleaned(self, prompt: Any, label: str, explanation: str) -> Cleaned:
        if self._clean_by is None or not explanation:
            return Cleaned(explanation, explanation)
        layer = self._clean_by.layers[0]
        before = answer_head(label)
        return clean(
            self.model, self.processor, prompt, before, explanation, self._clean_by, layer=layer, how=self.cleaning
        )


def _check(claim: Claim, verdict: Verdict, explanation: Cleaned | None = None) -> Check:
    said = explanation or Cleaned("", "")
    return Check(
        claim.text,
        verdict.label,
        verdict.probabilities,
        claim.evidence,
        said.original,
        said.text,
        said.tokens,
        said.dropped,
    )
