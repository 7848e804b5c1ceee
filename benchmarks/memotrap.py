"""MemoTrap by `truthkit eval`'s own scoring against one forward for each ending: how equal, and at what cost.

    python benchmarks/memotrap.py memotrap/ --decoder greedy        # all of it: a quarter of an hour on one core

The plain loop is Hugging Face alone: prompt and ending tokenised together, one float32 forward for each, log-softmax,
and the sum over the ending's tokens. With `--decoder cad:alpha=A` it is two forwards, the second without the item's
context, and the formula. CPU seconds of both are of this process, chunk by chunk in turn.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

import truthkit as tk
from truthkit.decoding.spec import parse_spec
from truthkit.evaluation.running.asking import Asking
from truthkit.evaluation.running.item import Item
from truthkit.evaluation.tasks import benchmarks

_CHUNK = 64


def plainly(model: Any, tokenizer: Any, item: Item, choice: str, alpha: float | None) -> float:
    """The log-probability of one ending, by one forward, or by two and CAD's formula."""

    def logits(prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        ids, start = tokenizer(prompt + choice, return_tensors="pt").input_ids, len(tokenizer(prompt).input_ids)
        with torch.no_grad():
            return model(input_ids=ids).logits[0, start - 1 : -1], ids[0, start:]

    scores, wanted = logits(item.prompt)
    if alpha is not None:
        without, same = logits(item.prompt.replace(item.context, "", 1))
        assert same.tolist() == wanted.tolist()
        scores = (1 + alpha) * scores - alpha * without
    return float(scores.log_softmax(-1).gather(1, wanted[:, None]).double().sum())


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of MemoTrap's .csv files, or one of them")
    parser.add_argument("--decoder", default="greedy", help="greedy, or cad:alpha=A")
    parser.add_argument("--limit", type=int, help="so many items, drawn (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, tokenizer = tk.load(dtype="float32")
    spec, task = parse_spec(args.decoder), benchmarks()["memotrap"].task(args.data)
    asking, alpha = Asking(model, tokenizer, spec, {}), spec.options.get("alpha")
    items = sorted(task.some(args.limit), key=lambda item: len(item.prompt))
    worst, same, ours, theirs = 0.0, 0, 0.0, 0.0
    for first in range(0, len(items), _CHUNK):
        some = items[first : first + _CHUNK]
        start = time.process_time()
        found = asking.choose(some)
        middle = time.process_time()
        plain = [[plainly(model, tokenizer, item, choice, alpha) for choice in item.choices] for item in some]
        ours, theirs = ours + middle - start, theirs + time.process_time() - middle
        for one, other in zip(found, plain, strict=True):
            worst = max(worst, *(abs(a - b) for a, b in zip(one, other, strict=True)))
            same += (one[0] > one[1]) == (other[0] > other[1])
        print(
            f"{first + len(some)} of {len(items)} items, {args.decoder}: largest difference {worst:.1e}, {same} chosen "
            f"alike; CPU seconds {ours:.0f}, plain loop {theirs:.0f}, {theirs / ours:.1f} times",
            flush=True,
        )


if __name__ == "__main__":
    main()
