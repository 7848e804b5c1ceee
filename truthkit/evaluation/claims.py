"""Claims put to a model under a decoder and steering, as `FactChecker` puts them to a model by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from truthkit.decoding.decoder import Decoder
from truthkit.decoding.prompts import text_tokenizer
from truthkit.evaluation.asking import Asking
from truthkit.evaluation.scoring import log_probabilities
from truthkit.steering.reflex import Form, answer_head
from truthkit.steering.reflex_answers import answers
from truthkit.steering.verdicts import LEAD, as_verdicts, encode_dialogue
from truthkit.training.factcheck_data import Claim

TOKENS_PER_CLAIM = 128


def check(
    asking: Asking, claims: Sequence[Claim], labels: Sequence[str], *, explain: bool, fixed: Any = None
) -> list[dict[str, Any]]:
    """For each claim `verdict`, `probabilities` of all labels, and the `explanation` where one is asked for.

    The verdict is the label whose words are the most probable after "Verdict:"; the explanation follows it, greedily.
    Evidence is shown where a claim has some. Where a decoder's plausibility constraint leaves no label, the verdict is
    None and nothing is explained.

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
    with decoder:
        scores = _label_scores(asking, prompts, labels, decoder if isinstance(decoder, Decoder) else None)
        judged = [i for i, row in enumerate(scores) if bool(row.isfinite().any())]
        verdicts = as_verdicts(scores[judged], labels)
        found: list[dict[str, Any]] = [{"verdict": None, "probabilities": dict.fromkeys(labels, 0.0)} for _ in claims]
        for i, verdict in zip(judged, verdicts, strict=True):
            found[i] = {"verdict": verdict.label, "probabilities": verdict.probabilities}
        if explain:
            heads = [answer_head(verdict.label).rstrip() for verdict in verdicts]
            said = _explanations(asking, [prompts[i] for i in judged], heads)
            for one in found:
                one["explanation"] = None
            for i, text in zip(judged, said, strict=True):
                found[i]["explanation"] = text
    return found


def _explanations(asking: Asking, prompts: Sequence[list[dict[str, str]]], heads: Sequence[str]) -> list[str]:
    if not prompts:
        return []
    said = answers(
        asking.model,
        asking.processor,
        prompts,
        heads=heads,
        max_new_tokens=asking.max_new_tokens,
        token_budget=4 * TOKENS_PER_CLAIM * asking.batch_size,
    )
    return [text.removeprefix(head).strip() for text, head in zip(said, heads, strict=True)]


def _label_scores(
    asking: Asking, prompts: Sequence[list[dict[str, str]]], labels: Sequence[str], decoder: Decoder | None
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
        decoder,
        batch_tokens=TOKENS_PER_CLAIM * asking.batch_size,
        share_prefix=asking.share_prefix,
        steerings=asking.steerings,
        prompt_lengths=ends,
    )
    return torch.tensor(scores, dtype=torch.float64).view(len(prompts), len(labels))
