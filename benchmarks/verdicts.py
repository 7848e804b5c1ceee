"""How much CPU time the verdicts on claims cost, and whether they are those of plain forwards.

    python benchmarks/verdicts.py --claims 12

REFLEX's dialogue with the bundled model in float32: `VerdictScorer` on all claims, plain and with the answers steered
by several vectors, against one plain forward for every claim, label and vector. Times are CPU seconds, the least of
three runs for the scorer and of one for the forwards; the last column is the largest difference in a log-probability.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

import truthkit as tk
from truthkit.factcheck.claims import LABELS_3, LABELS_6, Claim
from truthkit.factcheck.dialogue import Form
from truthkit.factcheck.guide import Guide
from truthkit.factcheck.verdicts import VerdictScorer
from truthkit.steering.vector import SteeringVector

WORDS = "the state spent more money on schools than last year says a report about jobs taxes and health care"


def claims(count: int) -> list[Claim]:
    """Claims of 8 to 30 words, the length of most of LIAR's."""
    draw = random.Random(0)
    return [
        Claim(str(i), " ".join(draw.choices(WORDS.split(), k=draw.randint(8, 30))) + ".", "true") for i in range(count)
    ]


def timed(call: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """The least CPU seconds, and what came out."""
    least, found = float("inf"), None
    for _ in range(runs):
        start = time.process_time()
        found = call()
        least = min(least, time.process_time() - start)
    return least, found


def plain(
    model: Any, tokenizer: Any, scorer: VerdictScorer, prompts: list[Any], sets: Sequence[Guide | None]
) -> torch.Tensor:
    """One forward for every vector, claim and label; (vectors, prompts, labels)."""
    lead = tokenizer(scorer.lead).input_ids
    scores = torch.zeros(len(sets), len(prompts), len(scorer.labels), dtype=torch.float64)
    for number, guide in enumerate(sets):
        with nullcontext() if guide is None else guide.steering(model) as steering, torch.no_grad():
            for row, prompt in enumerate(prompts):
                begun = scorer.encode(prompt)
                if steering is not None:
                    steering.prompt_lengths = [len(begun)]
                for column, label in enumerate(scorer.labels):
                    ids = [*begun, *lead, *tokenizer(f" {label}").input_ids]
                    log_p = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
                    where = range(len(begun) + len(lead), len(ids))
                    scores[number, row, column] = sum(float(log_p[i - 1, ids[i]]) for i in where)
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU seconds of verdicts")
    parser.add_argument("--claims", type=int, default=12)
    parser.add_argument("--vectors", type=int, default=4, help="that steer the answers, one after another")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, tokenizer = tk.load(dtype=torch.float32)
    width, layers = model.config.hidden_size, model.config.num_hidden_layers
    draw = torch.Generator().manual_seed(0)
    guides = [
        Guide(SteeringVector({3 + i: torch.randn(width, generator=draw) / 3}, layers)) for i in range(args.vectors)
    ]
    print("labels  steered  scorer s  forwards s   share  difference")
    for labels in (LABELS_3, LABELS_6):
        prompts = [Form(labels).prompt(claim) for claim in claims(args.claims)]
        scorer = VerdictScorer(model, tokenizer, labels)
        scorer.scores(prompts[:2])
        for sets in ([None], guides):
            fast = partial(scorer.scores_under, prompts, [() if one is None else (one,) for one in sets])
            seconds, found = timed(fast, 3)
            slow, expected = timed(partial(plain, model, tokenizer, scorer, prompts, sets), 1)
            off = float((found - expected).abs().max())
            steered = len(sets) if sets is guides else 0
            print(f"{len(labels):6}  {steered:7}  {seconds:8.2f}  {slow:10.2f}  {seconds / slow:6.1%}  {off:.1e}")


if __name__ == "__main__":
    main()
