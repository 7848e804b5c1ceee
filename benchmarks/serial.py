"""What the methods cost the plain way: one forward after the other, as the released implementations do.

These loops are yardsticks, written straight from the formulas; they share nothing with the package. Each is a generator
that prefills, then yields once per decoded token, so that a benchmark can time the steps. Batch size 1, greedy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import DynamicCache

Logits = Callable[[torch.Tensor], torch.Tensor]


def cached_logits(model: Any) -> Logits:
    """Next-token logits of `model` with a cache of its own; feed the prompt first, then a token at a time."""
    cache = DynamicCache(config=model.config)

    def logits(ids: torch.Tensor) -> torch.Tensor:
        return model(ids, cache=cache, logits_to_keep=1).logits[:, -1].float()

    return logits


def plausible(scores: torch.Tensor, main: torch.Tensor, beta: float) -> torch.Tensor:
    return scores.masked_fill(main < main.amax(-1, keepdim=True) + math.log(beta), -math.inf)


def contrast(
    main: Logits, other: Logits, prompt: torch.Tensor, other_prompt: torch.Tensor, beta: float
) -> Iterator[int]:
    """ICD: two forwards per token."""
    ids, other_ids = prompt, other_prompt
    while True:
        base = main(ids)
        scores = base.log_softmax(-1) - other(other_ids).log_softmax(-1)
        ids = other_ids = plausible(scores, base, beta).argmax(-1, keepdim=True)
        yield int(ids)


def dola(model: Any, prompt: torch.Tensor, layers: list[int], beta: float) -> Iterator[int]:
    """DoLa with `output_hidden_states` and one output head call per candidate layer, as transformers 4 did."""
    cache, ids = DynamicCache(config=model.config), prompt
    while True:
        outputs = model(ids, cache=cache, output_hidden_states=True, logits_to_keep=1)
        final = outputs.logits[:, -1].float()
        exits = torch.stack([model.lm_head(outputs.hidden_states[j + 1][:, -1]).float() for j in layers])
        p, q = final.softmax(-1)[None], exits.softmax(-1)
        m = 0.5 * (p + q)
        kl = [(m * (m.log() - x.log_softmax(-1))).sum(-1) for x in (final[None], exits)]
        chosen = (0.5 * (kl[0] + kl[1])).mean(-1).argmax()
        scores = final.log_softmax(-1) - exits[chosen].log_softmax(-1)
        ids = plausible(scores, final, beta).argmax(-1, keepdim=True)
        yield int(ids)


def contrastive_search(model: Any, prompt: torch.Tensor, alpha: float, k: int) -> Iterator[int]:
    """Contrastive search with the cache repeated for every candidate, as transformers 4 did."""
    cache = DynamicCache(config=model.config)
    outputs = model(prompt, cache=cache, output_hidden_states=True, logits_to_keep=1)
    context, logits = outputs.hidden_states[-1], outputs.logits[:, -1].float()
    while True:
        probabilities, candidates = logits.softmax(-1).topk(k, dim=-1)
        cache.batch_repeat_interleave(k)
        outputs = model(candidates.view(-1, 1), cache=cache, output_hidden_states=True, logits_to_keep=1)
        hidden = outputs.hidden_states[-1]
        unit = torch.nn.functional.normalize(hidden, dim=-1)
        past = torch.nn.functional.normalize(context.repeat_interleave(k, dim=0), dim=-1)
        similarity = (past @ unit.transpose(1, 2)).squeeze(-1).amax(-1)
        best = ((1 - alpha) * probabilities[0] - alpha * similarity.float()).argmax()
        cache.batch_select_indices(best[None])
        context = torch.cat([context, hidden[best][None]], dim=1)
        logits = outputs.logits[best].float()
        yield int(candidates[0, best])


def opera(model: Any, prompt: torch.Tensor, beams: int, candidates: int, scale: float) -> Iterator[int]:
    """OPERA with a forward of the beams, then one for each candidate, and all attention weights, as its authors did.

    Their roll-back is left out, and only the response's rows of attention are kept; theirs keeps all, for each step.
    """
    model.set_attn_implementation("eager")
    cache, ids = DynamicCache(config=model.config), prompt.repeat(beams, 1)
    first, scores = prompt.shape[1], torch.tensor([0.0, *[-1e9] * (beams - 1)])
    rows = torch.zeros(beams, 0, first)
    try:
        while True:
            outputs = model(ids, cache=cache, output_attentions=True, logits_to_keep=1)
            logits = outputs.logits[:, -1].float()
            if ids.shape[1] == 1:
                row = outputs.attentions[-1][:, :, -1].amax(1)
                rows = torch.cat([torch.nn.functional.pad(rows, (0, 1)), row[:, None]], dim=1)
            values, tokens = logits.topk(candidates, dim=-1)
            penalties = []
            for number in range(candidates):
                tried = model(tokens[:, number, None], cache=cache, output_attentions=True, logits_to_keep=1)
                cache.crop(-1)
                own = tried.attentions[-1][:, :, -1].amax(1)
                window = torch.cat([torch.nn.functional.pad(rows, (0, 1)), own[:, None]], dim=1)
                window = scale * (window / window.sum(-1, keepdim=True))[..., first:]
                products = torch.stack([window[:, j:, j].prod(-1) for j in range(window.shape[-1])], dim=-1)
                penalties.append(1e-7 * products.amax(-1))
            values = values - torch.stack(penalties, dim=-1)
            filled = torch.full_like(logits, -999.0).scatter(1, tokens, values)
            totals = (filled.log_softmax(-1) + scores[:, None]).flatten()
            scores, order = totals.topk(beams)
            parents, ids = order // logits.shape[-1], (order % logits.shape[-1])[:, None]
            cache.batch_select_indices(parents)
            rows = rows[parents]
            yield int(ids[0])
    finally:
        model.set_attn_implementation("sdpa")
