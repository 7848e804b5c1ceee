"""What extraction costs, in time and memory, against its floor and against the usual way.

    python benchmarks/extraction.py --pairs 512 --out extraction.json

- *floor*: the decoder alone, over the same length-sorted batches: no output head, no hooks, nothing kept.
- *usual way*: as the package steering-vectors does it, written out plainly: batches of 32 texts in dataset order,
left-padded
  with a mask, the whole model with its output head, the activations of all tokens and layers recorded, the last token
  of each taken, all of them kept until the end.

Texts are of 8 to 128 tokens, seeded random words. Every way runs in a process of its own; times are CPU seconds on one
thread, medians over interleaved rounds; memory is the growth of the process' peak resident set over what it was with
the model loaded and warm. With `--more-pairs N`, extraction from N pairs is set beside that from `--pairs`, both with
an allocator that gives memory back at once (MALLOC_MMAP_THRESHOLD_): what is in use, without what malloc keeps.

Decoding is greedy with a growing cache, batch 1. The ways run in threads of one process on the same weights and take
turns token by token, so that all meet the same machine; times are CPU times of the thread. Ratios are token by token to
"unsteered", median and quarter points. "Unsteered" appears twice: its second ratio shows the noise.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from transformers import StoppingCriteria

import truthkit as tk
from truthkit.hf.sites import decoder_blocks
from truthkit.steering.extraction.encoding import encode_pairs
from truthkit.steering.extraction.extract import _Reading
from truthkit.steering.extraction.pairs import checked_pairs

WAYS = ("floor", "extract", "usual")
DECODING = ("unsteered", "unsteered again", "steered", "steered, 1 layer", "baked")


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
    with torch.no_grad():
        for weights in model.parameters():  # mapped from a file: a table's rows take memory once they are read
            weights.sum()
    does = {
        "floor": lambda pairs: floor(model, tokenizer, pairs, budget),
        "extract": lambda pairs: tk.extract(model, tokenizer, pairs, token_budget=budget),
        "usual": lambda pairs: usual(model, tokenizer, pairs),
    }
    does["floor"](warm)
    Path("/proc/self/clear_refs").write_text("5")  # the peak of loading is over
    before = memory("VmRSS")
    start = time.process_time()
    does[way](pairs)
    seconds = time.process_time() - start
    return {"seconds": seconds, "extra_mb": memory("VmHWM") - before}


def memory(name: str) -> float:
    """A figure of this process, in MB; Linux."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024


def in_own_process(way: str, count: int, budget: int, longest: int, *, lean: bool = False) -> dict[str, float]:
    """One way, once, in a process of its own; lean: with an allocator that keeps nothing."""
    command = [sys.executable, __file__, "--run", way]
    command += ["--pairs", str(count), "--budget", str(budget), "--longest", str(longest)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"} if lean else None
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.strip().splitlines()[-1])


class InTurns(StoppingCriteria):
    """Lets several `generate` calls, each in a thread of its own, go on by one token in turn, and times each token."""

    def __init__(self, mine: threading.Semaphore, following: threading.Semaphore):
        self.mine, self.following = mine, following
        self.ticks: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self.ticks.append(time.thread_time())
        self.following.release()
        self.mine.acquire()
        self.ticks.append(time.thread_time())
        return torch.zeros(len(input_ids), dtype=torch.bool)


def decoding(tokens: int, *, fast: bool) -> dict[str, list[float]]:
    """CPU milliseconds of every decoded token; fast: in the layout of `tk.fast_decoding`."""
    model, tokenizer = tk.load()
    pairs = texts(tokenizer, 8)
    vector = tk.extract(model, tokenizer, pairs, held_out=0) * 0.1
    ids = torch.tensor([tokenizer(pairs[0][0]).input_ids])
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    models = {way: copy.deepcopy(model, dict(shared)) for way in DECODING}
    turns = [threading.Semaphore(0) for _ in DECODING]
    clocks = {way: InTurns(turns[i], turns[(i + 1) % len(turns)]) for i, way in enumerate(DECODING)}

    def generate(way: str) -> None:
        torch.set_num_threads(1)
        clocks[way].mine.acquire()
        try:
            models[way].generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                stopping_criteria=[clocks[way]],
                cache=tk.GrowingCache(config=model.config),
            )
        finally:
            clocks[way].following.release()

    with ExitStack() as stack:
        for other in models.values() if fast else ():
            stack.enter_context(tk.fast_decoding(other))
        stack.enter_context(vector.steer(models["steered"], layers="all"))
        stack.enter_context(vector.steer(models["steered, 1 layer"], layers=15, positions="generated"))
        stack.enter_context(vector.bake(models["baked"], layers="all"))
        threads = [threading.Thread(target=generate, args=(way,)) for way in DECODING]
        for thread in threads:
            thread.start()
        turns[0].release()
        for thread in threads:
            thread.join()
    return {
        way: [1e3 * (end - start) for start, end in zip(*ticks(clock), strict=True)] for way, clock in clocks.items()
    }


def ticks(clock: InTurns) -> tuple[list[float], list[float]]:
    """When each token after the first few was begun and done."""
    return clock.ticks[7:-2:2], clock.ticks[8:-1:2]


def report_decoding(spent: dict[str, list[float]], title: str) -> dict[str, Any]:
    """Print and return the table."""
    found = {}
    print(f"{title}: CPU ms/token, ratio to unsteered (quarter points), {len(spent['unsteered'])} tokens")
    for way, ones in spent.items():
        ratios = [one / base for one, base in zip(ones, spent["unsteered"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        found[way] = {"ms": statistics.median(ones), "ratio": middle, "quarters": [low, high]}
        print(f"  {way:18} {found[way]['ms']:8.2f}  {middle:6.3f} ({low:.3f} to {high:.3f})")
    return found


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--more-pairs", type=int, default=0, help="compare memory with that for so many pairs")
    parser.add_argument("--budget", type=int, default=2048, help="tokens per forward (default: %(default)s)")
    parser.add_argument("--longest", type=int, default=128, help="tokens of the longest text (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of extraction; 0 leaves it out (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=200, help="to decode; 0 leaves it out (default: %(default)s)")
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
    base = statistics.median(one["seconds"] for one in runs["floor"]) if args.rounds else 0.0
    for way, ones in runs.items() if args.rounds else ():
        seconds, extra = (statistics.median(one[key] for one in ones) for key in ("seconds", "extra_mb"))
        figures[way] = {"seconds": seconds, "ratio": seconds / base, "extra_mb": extra, "runs": ones}
        print(f"{way:10} {seconds:8.1f} s  {seconds / base:5.2f} x floor  {extra:8.0f} MB")
    for count in (args.pairs, args.more_pairs) if args.more_pairs else ():
        more = in_own_process("extract", count, args.budget, args.longest, lean=True)
        figures[f"extract {count}, lean allocator"] = more
        print(f"extract from {count} pairs: {more['seconds']:.1f} s, {more['extra_mb']:.1f} MB in use at most")
    for fast in (False, True) if args.tokens else ():
        title = "decoding, fast layout" if fast else "decoding"
        spent = decoding(args.tokens, fast=fast)
        figures[title] = report_decoding(spent, title)
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
