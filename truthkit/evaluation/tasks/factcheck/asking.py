"""Claims put to a model under a decoder and steering, as `FactChecker` puts them to a model by itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch

from truthkit.decoding.engine.session import Session
from truthkit.evaluation.running.asking import Asking
from truthkit.factcheck.claims import Claim
from truthkit.factcheck.dialogue import Form
from truthkit.factcheck.explanations import explanations
from truthkit.factcheck.verdicts import LEAD, as_verdicts
from truthkit.likelihood.log_probabilities import log_probabilities
from truthkit.text.encode import encode_dialogue
from truthkit.text.tokens import text_tokenizer

TOKENS_PER_CLAIM = 128


def check(
    asking: Asking, claims: Sequence[Claim], labels: Sequence[str], *, explain: bool, fixed: Any = None
) -> list[dict[str, Any]]:
    """For each claim `verdict`, `probabilities` of all labels, and the `explanation` where one is asked for.

    The verdict is the label whose words are the most probable after "Verdict:"; the explanation follows it, greedily.
    Evidence is shown where a claim has some. A decoder's plausibility constraint holds for the explanation only: among
    the labels it would leave one or none. That is ours.

    Args:
        asking: model, decoder and limits.
        claims: what is judged.
        labels: the verdicts to choose from.
        explain: ask for an explanation too.
        fixed: the decoder, where it is built already.

    Raises:
        ArgumentError: a claim and its evidence leave no room in the model's context.
    """
    form = Form(tuple(labels), explain=explain)
    prompts = [replace(form, evidence=claim.evidence is not None).prompt(claim) for claim in claims]
    decoder = fixed or asking.decoder.build(asking.model, asking.processor, **asking.supplied)
    with decoder as entered:
        session = entered if isinstance(entered, Session) else None
        with session.unconstrained() if session else nullcontext():
            scores = _label_scores(asking, prompts, labels, session)
        verdicts = as_verdicts(scores, labels)
        found: list[dict[str, Any]] = [{"verdict": one.label, "probabilities": one.probabilities} for one in verdicts]
        if explain:
            said = explanations(
                asking.model,
                asking.processor,
                prompts,
                [verdict.label for verdict in verdicts],
                max_new_tokens=asking.max_new_tokens,
                token_budget=4 * TOKENS_PER_CLAIM * asking.size,
            )
            for one, text in zip(found, said, strict=True):
                one["explanation"] = text
    return found


def _label_scores(
    asking: Asking, prompts: Sequence[list[dict[str, str]]], labels: Sequence[str], session: Session | None
) -> torch.Tensor:
    """Log-probability of each label after prompt and lead; (prompts, labels), float64."""
    tokenizer = text_tokenizer(asking.processor, "scoring verdicts")
    rows, starts, ends = [], [], []
    for prompt in prompts:
        own = [encode_dialogue(tokenizer, prompt, f"{LEAD} {label}") for label in labels]
        same = next(i for i, column in enumerate(zip(*own, strict=False)) if len(set(column)) > 1)
        rows += own
        starts += [same] * len(labels)
        ends += [len(encode_dialogue(tokenizer, prompt))] * len(labels)
    scores = log_probabilities(
        asking.model,
        rows,
        starts,
        session,
        token_budget=TOKENS_PER_CLAIM * asking.size,
        share_prefix=asking.share_prefix,
        steerings=asking.steerings,
        prompt_lengths=ends,
    )
    return torch.tensor(scores, dtype=torch.float64).view(len(prompts), len(labels))
