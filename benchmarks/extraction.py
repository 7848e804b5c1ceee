"""What extraction costs, in time and memory, against its floor and against the usual way.

    python benchmarks/extraction.py --pairs 512 --out extraction.json

- *floor*: the decoder alone, over the same length-sorted batches: no output head, no hooks, nothing kept.
- *usual way*: as the package steering-vectors does it, written out plainly: batches of 32 texts in dataset order,
left-padded
  with a mask, the whole model with its output head, the activations of all tokens and layers recorded, the last token
  of each taken, all of them kept until the end.

Texts are of 8 to 128 tokens, seeded random words. Every way runs in a process of its own; times are CPU seconds on one
thread, medians over interleaved rounds; memory is the growth of the process' peak resident set over what it was with
the model loaded and warm. Decoding is greedy with a growing cache, per token.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import truthkit as tk
from truthkit.activations.sites import decoder_blocks
from truthkit.steering.extraction import _Reading
from truthkit.steering.pairs import checked_pairs, encode_pairs

WAYS = ("floor", "extract", "usual")
DECODING = ("unsteered", "steered", "steered-one-layer", "baked")


def texts(tokenizer: Any, count: int, longest: int = 128, seed: int = 0) -> list[tuple[str, str]]:
    """Pairs of random words, 8 to `longest` tokens on each side."""
    draw = random.Random(seed)
    words = [word for word in (tokenizer.decode([i]) for i in range(1000, 6000)) if word.strip().isalpha()]

    def text() -> str:
        ids = tokenizer("".join(draw.choice(words) for _ in range(longest + 12))).input_ids
        return tokenizer.decode(ids[: draw.randint(8, longest)])

    return [(text(), text()) for _ in range(count)]


def floor(model: Any, tokenizer: Any, pairs: list[tuple[str, str]], budget: int) -> None:
    """The decoder over the batches, and nothing else."""
    encoded = encode_pairs(checked_pairs(pairs), tokenizer)
    reading = _Reading(model, model, tokenizer, encoded, (0,), "last", "block", None)
    decoder = model.get_decoder()
    with torch.no_grad():
        for batch in reading.batches(range(len(encoded.ids)), budget, whole_pairs=False):
            rows = [encoded.ids[text] for text in batch]
            width = max(map(len, rows))
            decoder(input_ids=torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in rows]), use_cache=False)


def usual(model: Any, tokenizer: Any, pairs: list[tuple[str, str]], size: int = 32) -> dict[int, torch.Tensor]:
    """Mean differences the usual way."""
    tokenizer.padding_side = "left"
    blocks = decoder_blocks(model)
    kept: dict[int, list[list[torch.Tensor]]] = {layer: [[], []] for layer in range(len(blocks))}
    for side in (0, 1):
        for start in range(0, len(pairs), size):
            batch = tokenizer([pair[side] for pair in pairs[start : start + size]], return_tensors="pt", padding=True)
            recorded: dict[int, torch.Tensor] = {}

            def record(layer: int, recorded: dict[int, torch.Tensor] = recorded) -> Any:
                return lambda _module, _args, output: recorded.__setitem__(layer, output)

            handles = [block.register_forward_hook(record(layer)) for layer, block in enumerate(blocks)]
            with torch.no_grad():
                model(**batch)
            for handle in handles:
                handle.remove()
            for layer, hidden in recorded.items():
                kept[layer][side].append(hidden[:, -1].clone())
    return {layer: torch.cat(a).mean(0) - torch.cat(b).mean(0) for layer, (a, b) in kept.items()}


def run(way: str, count: int, budget: int, longest: int) -> dict[str, float]:
    """One way, once, in this process."""
    torch.set_num_threads(1)
    model, tokenizer = tk.load()
    pairs = texts(tokenizer, count, longest)
    warm = pairs[:2]
    does = {
        "floor": lambda pairs: floor(model, tokenizer, pairs, budget),
        "extract": lambda pairs: tk.extract(model, tokenizer, pairs, token_budget=budget),
        "usual": lambda pairs: usual(model, tokenizer, pairs),
    }
    does["floor"](warm)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    does[way](pairs)
    seconds = time.process_time() - start
    return {"seconds": seconds, "extra_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def in_own_process(way: str, count: int, budget: int, longest: int) -> dict[str, float]:
    """One way, once, in a process of its own."""
    command = [sys.executable, __file__, "--run", way]
    command += ["--pairs", str(count), "--budget", str(budget), "--longest", str(longest)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def decoding(tokens: int, rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds per decoded token: unsteered, steered at all layers and at one, baked."""
    from transformers import StoppingCriteria

    class Clock(StoppingCriteria):
        def __init__(self) -> None:
            self.ticks: list[float] = []

        def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            self.ticks.append(time.process_time())
            return torch.zeros(len(input_ids), dtype=torch.bool)

    model, tokenizer = tk.load()
    pairs = texts(tokenizer, 8)
    vector = tk.extract(model, tokenizer, pairs, held_out=0) * 0.1
    ids = torch.tensor([tokenizer(pairs[0][0]).input_ids])

    def once() -> list[float]:
        clock = Clock()
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            stopping_criteria=[clock],
            cache=tk.GrowingCache(config=model.config),
        )
        return [1e3 * (b - a) for a, b in zip(clock.ticks, clock.ticks[1:], strict=False)]

    steps: dict[str, list[float]] = {way: [] for way in DECODING}
    for _ in range(rounds):
        steps["unsteered"] += once()
        with vector.steer(model):
            steps["steered"] += once()
        with vector.steer(model, layers=15, positions="generated"):
            steps["steered-one-layer"] += once()
        with vector.bake(model):
            steps["baked"] += once()
    return steps


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--more-pairs", type=int, default=0, help="extract from so many pairs too, to compare memory")
    parser.add_argument("--budget", type=int, default=2048, help="tokens per forward (default: %(default)s)")
    parser.add_argument("--longest", type=int, default=128, help="tokens of the longest text (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32, help="decoded tokens per round")
    parser.add_argument("--run", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.run:
        print(json.dumps(run(args.run, args.pairs, args.budget, args.longest)))
        return
    figures: dict[str, Any] = {"pairs": args.pairs, "token_budget": args.budget}
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(args.rounds):
        for way in WAYS:
            runs[way].append(in_own_process(way, args.pairs, args.budget, args.longest))
    base = statistics.median(one["seconds"] for one in runs["floor"])
    for way, ones in runs.items():
        seconds, memory = (statistics.median(one[key] for one in ones) for key in ("seconds", "extra_mb"))
        figures[way] = {"seconds": seconds, "ratio": seconds / base, "extra_mb": memory, "runs": ones}
        print(f"{way:10} {seconds:8.1f} s  {seconds / base:5.2f} x floor  {memory:8.0f} MB")
    if args.more_pairs:
        more = in_own_process("extract", args.more_pairs, args.budget, args.longest)
        figures["extract, more pairs"] = {"pairs": args.more_pairs, **more}
        print(f"extract from {args.more_pairs} pairs: {more['seconds']:.1f} s, {more['extra_mb']:.0f} MB")
    if args.tokens:
        steps = decoding(args.tokens, 2 * args.rounds)
        plain = statistics.median(steps["unsteered"])
        for way, ones in steps.items():
            figures[way] = {"ms": statistics.median(ones), "ratio": statistics.median(ones) / plain}
            print(f"{way:20} {figures[way]['ms']:8.2f} ms/token  {figures[way]['ratio']:6.3f} x unsteered")
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
