"""OPERA for one prompt by its definition: a full forward for every beam and candidate, no cache, nothing kept between.

Attention maps come from `output_attentions` of an eager model, whole, and every product is multiplied out anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Forward = Callable[[list[list[int]]], list[tuple[torch.Tensor, torch.Tensor]]]
"""Maps equally long responses to the next token's log-probabilities (vocabulary,) and the last block's attention, the
maximum over heads, (queries, keys)."""

FIRST = 10


@dataclass
class Found:
    """The best response, its score, and from where to where it went back."""

    tokens: list[int]
    score: float
    jumps: list[tuple[int, int]]


def forward_of(model: Any, inputs: dict[str, Any], process: Any = None) -> Forward:
    """Full forwards of one unpadded prompt of shape (1, length) with responses behind it."""
    prompt = inputs["input_ids"]

    @torch.no_grad()
    def forward(responses: list[list[int]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        count = len(responses)
        ids = torch.cat([prompt.expand(count, -1), torch.tensor(responses, dtype=torch.long)], dim=1)
        given = {name: value.repeat(count, *[1] * (value.dim() - 1)) for name, value in inputs.items()}
        given |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if (types := given.get("mm_token_type_ids")) is not None:
            given["mm_token_type_ids"] = torch.nn.functional.pad(types, (0, len(responses[0])))
        outputs = model(**given, use_cache=False, output_attentions=True)
        scores = outputs.logits[:, -1].float().log_softmax(-1)
        scores = scores if process is None else process(ids, scores)
        return list(zip(scores.double(), outputs.attentions[-1].double().amax(1), strict=True))

    return forward


def opera_by_definition(
    forward: Forward,
    prompt: int,
    images: list[int],
    new: int,
    beams: int,
    candidates: int,
    scale: float,
    threshold: int,
    weight: float,
    ends: tuple[int, ...] = (),
    length_penalty: float = 1.0,
) -> Found:
    """Search one response.

    Args:
        forward: of the prompt.
        prompt: its length.
        images: its columns that are images'.
        new, beams, candidates, scale, threshold, weight, ends, length_penalty: the options.
    """
    # a beam is (tokens, score, the summary tokens of its steps so far)
    steps: list[dict[str, Any]] = [{"beams": [([], 0.0, [])], "tried": set(), "done": []}]
    visits: Counter[int] = Counter()
    jumps: list[tuple[int, int]] = []
    while True:
        step = steps[-1]
        length = len(step["beams"][0][0])
        options: list[tuple[float, int, int]] = []
        own: list[int] = []
        known = forward([tokens for tokens, _, _ in step["beams"]])
        for number, (tokens, score, _) in enumerate(step["beams"]):
            log_probs, _ = known[number]
            values, ids = log_probs.topk(candidates)
            penalized, summaries = [], []
            tried = forward([[*tokens, token] for token in ids.tolist()])
            for value, (_, attention) in zip(values.tolist(), tried, strict=True):
                attention = attention / attention.sum(-1, keepdim=True)
                window = scale * attention[prompt:, prompt:]
                products = [float(window[j:, j].prod()) for j in range(length + 1)]
                summaries.append(products.index(max(products)))
                penalty = 1e-7 * max(products)
                if length + 1 <= FIRST:
                    penalty = -float(attention[-1, images].sum())
                penalized.append(value - weight * penalty)
            own.append(_mode(summaries))
            normal = torch.tensor(penalized, dtype=torch.float64).log_softmax(0).tolist()
            options += [(score + one, number, token) for one, token in zip(normal, ids.tolist(), strict=True)]
        step["own"] = own
        place = _mode(own)
        overlaps = [[*past, now].count(place) for (_, _, past), now in zip(step["beams"], own, strict=True)]
        if place >= FIRST and min(overlaps) >= threshold:
            target = next((t for t in (place + 1, place) if visits[t] < candidates), None)
            if target is not None and target < length:
                visits[target] += 1
                jumps.append((length, target))
                del steps[target + 1 :]
                step = steps[target]
                options = []
                for number, (tokens, score, _) in enumerate(step["beams"]):
                    log_probs = forward([tokens])[0][0].tolist()
                    options += [
                        (score + one, number, token)
                        for token, one in enumerate(log_probs)
                        if (number, token) not in step["tried"]
                    ]
        options.sort(reverse=True)
        following: list[Any] = []
        done = list(step["done"])
        for rank, (total, number, token) in enumerate(options[: max(2, 1 + len(ends)) * beams]):
            tokens = [*step["beams"][number][0], token]
            if token in ends or len(tokens) == new:
                if rank < beams:
                    done.append((total / len(tokens) ** length_penalty, tokens))
            elif len(following) < beams:
                step["tried"].add((number, token))
                following.append((tokens, total, [*step["beams"][number][2], step["own"][number]]))
        done = sorted(done, key=lambda one: -one[0])[:beams]
        best = following[0][1] / len(following[0][0]) ** length_penalty if following else 0.0
        if not following or (len(done) == beams and best <= done[-1][0]):
            return Found(done[0][1], done[0][0], jumps)
        steps.append({"beams": following, "tried": set(), "done": done})


def _mode(numbers: list[int]) -> int:
    counts = Counter(numbers)
    return min(number for number in counts if counts[number] == max(counts.values()))
