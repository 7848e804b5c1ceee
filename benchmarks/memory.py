"""Peak extra memory of each decoder over the loaded model, beside greedy's. Linux only.

    python benchmarks/memory.py --context 2048

Every decoder runs in a process of its own, so that no freed memory of another hides its peak. With a view's length,

    python benchmarks/memory.py --context 4000 --view 100

counts instead what CAD's keys and values take in all layers of the cache, spare room included: those of the whole
prompt, and those of the view that lacks the passage.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import overhead
import torch

import truthkit as tk

DECODERS = (
    "greedy",
    "greedy, growing cache",
    "ICD adapter",
    "LOL adapter, 3 layers",
    "LOL adapter, 3 layers, refocus",
    "CAD",
    "DoLa, 8 layers",
    "DoLa, 8 layers, serial",
    "contrastive search, k=4",
    "contrastive search, k=4, serial",
)


def _status(field: str) -> float:
    """A memory field of this process in MiB."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def _peak(label: str, context: int, tokens: int) -> float:
    torch.set_num_threads(1)
    model, tokenizer = tk.load()
    with tempfile.TemporaryDirectory() as folder:
        adapter = overhead.random_amateur(model, Path(folder))
        way = overhead.Bench(model, None, tokenizer, context, tokens).ways(adapter)[label]
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        way()
    return _status("VmHWM") - before


def _cache_bytes(context: int, view: int, tokens: int) -> tuple[int, int]:
    """Of the main view and of the other one, after `tokens` tokens."""
    torch.set_num_threads(1)
    model, tokenizer = tk.load()
    ids = tokenizer("The quick brown fox jumps over the lazy dog near the old river bank. " * (context // 10)).input_ids
    passage, question = tokenizer.decode(ids[: context - view]), tokenizer.decode(ids[context - view : context])
    inputs = tokenizer(passage + question, return_tensors="pt")
    counted: list[tuple[int, int]] = []

    def count(_module: Any, _args: Any, _kwargs: Any, outputs: Any) -> None:
        layers = [getattr(layer, "parts", (layer,)) for layer in outputs.cache.layers]
        main, *others = (sum(map(_bytes, parts)) for parts in zip(*layers, strict=True))
        counted.append((main, sum(others)) if others else (main // 2, main - main // 2))

    with tk.CAD(model, tokenizer, context=passage), model.register_forward_hook(count, with_kwargs=True):
        model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    return counted[-1]


def _bytes(layer: Any) -> int:
    return sum(states.untyped_storage().nbytes() for states in (layer.keys, layer.values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--view", type=int, help="tokens of CAD's prompt without its passage")
    args = parser.parse_args()
    if args.view is not None:
        main_view, other = _cache_bytes(args.context, args.view, args.tokens)
        print(f"keys and values in float32 after {args.tokens} tokens, context {args.context}, CAD's view {args.view}")
        print(f"  main view {main_view / 2**20:.1f} MiB, the other {other / 2**20:.1f} MiB: {other / main_view:.1%}")
        return
    print(f"peak over the loaded model in float32, context {args.context}, {args.tokens} tokens")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for label in DECODERS:
            peak = pool.submit(_peak, label, args.context, args.tokens).result()
            print(f"  {label:40} {peak:8.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
