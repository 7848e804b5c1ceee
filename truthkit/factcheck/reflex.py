"""REFLEX: what a model and its fine-tuned form disagree on, as vectors (2511.20233).

Where only the fine-tuned model F is right (Q2 of `Disagreement`) lies the *style* vector, to be amplified. Where only
the backbone B is (Q4) lies the *substance* vector, which points from what F says to what B knew, and suppresses the
conflict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from truthkit.activations.capture import read_texts
from truthkit.activations.positions import Positions
from truthkit.errors import ArgumentError
from truthkit.factcheck.claims import Claim
from truthkit.factcheck.dialogue import Form, answer_head
from truthkit.factcheck.disagreement import Disagreement
from truthkit.factcheck.verdicts import LEAD
from truthkit.hf.wrapping import plain_model
from truthkit.steering.extraction.extract import extract
from truthkit.steering.extraction.pairs import Pair
from truthkit.steering.vector import SteeringVector
from truthkit.text.encode import encode_dialogue
from truthkit.text.tokens import ChatOrText, batches, text_tokenizer


def vertical_pairs(
    found: Disagreement, numbers: Sequence[int], form: Form | None = None, *, through: str = "lead"
) -> list[Pair]:
    """The same text on both sides: `extract(..., against="base")` then gives what the two models differ in.

    Args:
        found: the claims.
        numbers: which of them.
        form: labels and format.
        through: how far the text goes: to the "lead" (where the verdict is about to be said), the gold "verdict", or
            the gold "explanation". Ours.
    """
    form = form or Form()
    pairs = []
    for i in numbers:
        claim = found.claims[i]
        said = _answer(claim, claim.label, through)
        text = [*form.prompt(claim), {"role": "assistant", "content": said}]
        pairs.append(Pair(text, text, group=str(i)))
    return pairs


def horizontal_pairs(
    found: Disagreement, numbers: Sequence[int], form: Form | None = None, *, through: str = "verdict"
) -> list[Pair]:
    """Answers to the same prompt: the gold verdict against the wrong one that was given, both within F.

    Args:
        found: the claims.
        numbers: which of them.
        form: labels and format.
        through: whether the gold "explanation" follows either "verdict". Ours.
    """
    form = form or Form()
    if through == "lead":
        raise ArgumentError("through is 'lead', where both sides are the same; expected 'verdict' or 'explanation'.")
    pairs = []
    for i in numbers:
        claim = found.claims[i]
        right, wrong = (_answer(claim, label, through) for label in (claim.label, found.wrong(i)))
        pairs.append(Pair(right, wrong, prompt=form.prompt(claim), group=str(i)))
    return pairs


def _answer(claim: Claim, label: str, through: str) -> str:
    match through:
        case "lead":
            return LEAD
        case "verdict":
            return f"{LEAD} {label}"
        case "explanation":
            if not (claim.explanation and claim.explanation.strip()):
                raise ArgumentError(
                    f"claim {claim.id!r} has no explanation; use through='verdict', or claims that have one."
                )
            return answer_head(label) + claim.explanation.strip()
    raise ArgumentError(f"through is {through!r}; expected 'lead', 'verdict' or 'explanation'.")


@dataclass(frozen=True)
class ReflexVectors:
    """The vectors of every layer.

    Attributes:
        style: what F has and B has not where F alone is right (vertical), or what sets the gold verdict apart there
            (horizontal).
        substance: what B has and F has not where B alone is right, or what sets the gold verdict apart there.
        shift: what F has and B has not where both are right or both wrong: fine-tuning as such. None for horizontal
            pairs, and where there are no such claims.
    """

    style: SteeringVector
    substance: SteeringVector
    shift: SteeringVector | None = None

    def leakage(self) -> dict[int, float]:
        """By layer, the cosine between style and substance; its square is the share of either that is the other."""
        return self.style.cosine(self.substance)

    def orthogonalised(self, *, keep: str = "style") -> ReflexVectors:
        """One vector as it is, the other without its part along it.

        Args:
            keep: "style" or "substance"; ours.
        """
        if keep == "style":
            return ReflexVectors(self.style, self.substance.orthogonalise(self.style), self.shift)
        if keep == "substance":
            return ReflexVectors(self.style.orthogonalise(self.substance), self.substance, self.shift)
        raise ArgumentError(f"keep is {keep!r}; expected 'style' or 'substance'.")

    def without_shift(self) -> ReflexVectors:
        """Both vectors less what fine-tuning changes on any claim, right or wrong (ours).

        A difference of differences: what F and B differ in on Q2, or on Q4, beyond what they differ in elsewhere. With
        vertical pairs style and substance are mostly that shift, one along it and one against it.

        Raises:
            ArgumentError: there is no shift vector.
        """
        if self.shift is None:
            raise ArgumentError("there is no shift vector: it comes from vertical pairs with claims in Q1 or Q3.")
        return ReflexVectors(self.style - self.shift, self.substance + self.shift, self.shift)


def reflex_vectors(
    model: Any,
    processor: Any,
    found: Disagreement,
    form: Form | None = None,
    *,
    contrast: str = "vertical",
    through: str | None = None,
    method: str = "mean",
    positions: Positions = "last",
    least: int = 1,
    most: int | None = None,
    against: Any = "base",
    held_out: float = 0.2,
    token_budget: int = 2048,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> ReflexVectors:
    """Style and substance at every decoder block.

    Args:
        model: the fine-tuned model.
        processor: its tokenizer or processor.
        found: the disagreement of the two models on training claims.
        form: labels and format; as in `disagreement`.
        contrast: "vertical" (B's against F's states on the same text) or "horizontal" (answers within F).
        through: how far the texts go; None is "lead" for vertical, "verdict" for horizontal pairs. Ours.
        method: "mean" or "logistic" are the paper's; any of `tk.extract`'s.
        positions: which tokens are read. Ours: the last, where the verdict is about to be said, or has been.
        least: fewer claims than this in Q2 or Q4 are an error. Ours.
        most: no more claims than this of each quadrant, the first ones. None takes all.
        against: the backbone; see `as_backbone`.
        held_out: the share of claims to score on.
        token_budget: how many tokens, padding included, run in one forward.
        seed: of the split and of the resampling.
        progress: show a progress bar.
        **options: of the method.

    Raises:
        ArgumentError: Q2 or Q4 has too few claims, or something else makes no sense.
    """
    form = form or Form()
    for name, what in (("Q2", "only the fine-tuned model is right"), ("Q4", "only the backbone is right")):
        if len(found.of(name)) < max(1, least):
            counts = ", ".join(f"{key}: {count}" for key, count in found.counts().items())
            raise ArgumentError(
                f"{name}, where {what}, has {len(found.of(name))} claims, but at least {max(1, least)} are needed "
                f"({counts}). Give more training claims, even out the labels (bias=), or train for longer or shorter."
            )
    if contrast not in ("vertical", "horizontal"):
        raise ArgumentError(f"contrast is {contrast!r}; expected 'vertical' or 'horizontal'.")
    vertical = contrast == "vertical"
    through = through or ("lead" if vertical else "verdict")

    def vector(numbers: list[int]) -> SteeringVector:
        make = vertical_pairs if vertical else horizontal_pairs
        return extract(
            model,
            processor,
            make(found, numbers[:most], form, through=through),
            positions=positions,
            method=method,
            held_out=held_out,
            token_budget=token_budget,
            seed=seed,
            against=against if vertical else None,
            progress=progress,
            **options,
        )

    style, substance = vector(found.of("Q2")), vector(found.of("Q4"))
    rest = sorted(found.of("Q1") + found.of("Q3"))
    shift = vector(rest) if vertical and rest else None
    return ReflexVectors(style, -substance if vertical else substance, shift)


def along_vectors(
    model: Any,
    processor: Any,
    prompts: Sequence[ChatOrText],
    vectors: Sequence[SteeringVector],
    *,
    layer: int,
    answer: str = LEAD,
    positions: Positions = "last",
    token_budget: int = 2048,
) -> torch.Tensor:
    """How far each text's state lies along each vector's unit direction at one layer; (texts, vectors), float64."""
    tokenizer, plain = text_tokenizer(processor, "texts along vectors"), plain_model(model)
    ids = [encode_dialogue(tokenizer, prompt, answer) for prompt in prompts]
    before = [len(encode_dialogue(tokenizer, prompt)) for prompt in prompts]
    units = torch.stack([torch.nn.functional.normalize(vector[layer].double(), dim=0) for vector in vectors])
    result = torch.zeros(len(ids), len(vectors), dtype=torch.float64)
    for batch in batches([len(text) for text in ids], token_budget):
        states = read_texts(
            plain,
            [ids[i] for i in batch],
            [before[i] for i in batch],
            [layer],
            positions=positions,
            site=vectors[0].site,
            processor=processor,
        )
        result[batch] = states[0].double().cpu() @ units.T
    return result
