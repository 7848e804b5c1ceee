"""Peak extra memory of each decoder over the loaded model, beside greedy's. Linux only.

    python benchmarks/memory.py --context 2048

Every decoder runs in a process of its own, so that no freed memory of another hides its peak.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=8)
    args = parser.parse_args()
    print(f"peak over the loaded model in float32, context {args.context}, {args.tokens} tokens")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for label in DECODERS:
            peak = pool.submit(_peak, label, args.context, args.tokens).result()
            print(f"  {label:40} {peak:8.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
