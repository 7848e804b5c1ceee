"""What everything costs on a GPU, in minutes and by one command.

    python benchmarks/gpu.py --out gpu-figures --minutes 8

Models of Llama-3-8B's and LLaVA-1.5-7B's sizes with random weights, bfloat16. Every part is one model, prompt length,
batch and mode (eager; or compiled over a static cache), and times all its ways to decode in interleaved rounds, so that
ratios to greedy come from one run; a last part sets extraction from 512 pairs beside its floor, the decoder's forwards
alone. Times are wall time between synchronisations (on a CPU, CPU time): to the first token, and per token after it.

Parts are written to OUT/figures.json as they are done, and to OUT/figures.md as tables. They run in the order of what
is asked most, until the minutes are over; the same command again goes on with those that are left. A way that fails,
for want of memory say, is noted with its reason, and the others go on. `--device cpu --tiny` tries the script itself.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import extraction
import gpu_models
import torch
import transformers
from gpu_bench import Bench, Run, Way
from tqdm import tqdm

import truthkit as tk
from truthkit.files.writing import write_atomically


class Part(NamedTuple):
    """One table."""

    model: str
    context: int
    batch: int
    mode: str

    @property
    def key(self) -> str:
        if self.mode == "extraction":
            return "text, extraction"
        length = f", context {self.context}" if self.model == "text" else ""
        return f"{self.model}{length}, batch {self.batch}, {self.mode}"


EXTRACTION = Part("text", 128, 1, "extraction")


def parts(contexts: list[int]) -> list[Part]:
    """All of them, what is asked most first; `contexts` from short to long."""
    short, *others = contexts
    middle = others[0] if others else short
    first = [
        Part("text", middle, 1, "eager"),
        Part("text", short, 1, "compiled"),
        Part("text", middle, 8, "eager"),
        EXTRACTION,
        *[Part("text", context, 1, "eager") for context in contexts],
        *[Part("text", context, 8, "compiled") for context in contexts[:2]],
        Part("image", 0, 1, "eager"),
        Part("image", 0, 1, "compiled"),
        Part("image", 0, 8, "eager"),
        Part("image", 0, 8, "compiled"),
    ]
    rest = [
        Part("text", context, batch, mode) for context in contexts for batch in (1, 8) for mode in ("eager", "compiled")
    ]
    return list(dict.fromkeys([*first, *rest]))


class OutOfTime(Exception):
    """The minutes are over."""


class Figures:
    """What was measured, kept in one folder.

    Raises:
        SystemExit: the folder's figures are of another device or other versions.
    """

    def __init__(self, folder: Path, environment: dict[str, Any]):
        self.folder, self.path = folder, folder / "figures.json"
        self.kept: dict[str, Any] = {"environment": environment, "parts": {}}
        if self.path.exists():
            self.kept = json.loads(self.path.read_text())
            if differing := [
                name
                for name, value in environment.items()
                if name != "date" and self.kept["environment"].get(name) != value
            ]:
                sys.exit(f"{self.path} was measured with another {', '.join(differing)}; give another --out.")

    def add(self, part: Part, table: dict[str, Any]) -> None:
        self.kept["parts"][part.key] = table
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, self.kept)
        (self.folder / "figures.md").write_text(self.markdown())

    def markdown(self) -> str:
        """All tables."""
        lines = ["# Figures", "", *[f"- {name}: {value}" for name, value in self.kept["environment"].items()]]
        for key, table in self.kept["parts"].items():
            unit = "pair" if key == EXTRACTION.key else "token"
            lines += ["", f"## {key}", "", f"Medians of {table['rounds']} interleaved rounds.", ""]
            lines += [
                f"| | to the first, ms | per {unit}, ms | x the first line | peak above the weights, GiB |",
                "|---|---:|---:|---:|---:|",
            ]
            lines += [_row(name, way) for name, way in table["ways"].items()]
        return "\n".join(lines) + "\n"


def _row(name: str, way: dict[str, Any]) -> str:
    if "error" in way:
        return f"| {name} | {way['error']} | | | |"
    shown = [way["prefill_ms"], way["step_ms"], way["ratio"], way["peak_gib"]]
    digits = (1, 2, 2, 2)
    cells = ["" if value is None else f"{value:,.{places}f}" for value, places in zip(shown, digits, strict=True)]
    return f"| {name} | {' | '.join(cells)} |"


def measure(ways: dict[str, Way], rounds: int, deadline: float, title: str) -> dict[str, Any]:
    """A table of all `ways` in interleaved rounds, after one that warms and compiles; fewer rounds if the time ends.

    Raises:
        OutOfTime: before one whole round was measured.
    """
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    errors: dict[str, str] = {}
    done = 0
    bar = tqdm(total=(rounds + 1) * len(ways), desc=title)
    try:
        for number in range(rounds + 1):
            for name, way in ways.items():
                bar.update()
                if time.monotonic() > deadline:
                    raise OutOfTime
                if name in errors:
                    continue
                try:
                    run = way()
                except (RuntimeError, tk.TruthkitError) as error:
                    errors[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
                    _free()
                else:
                    if number:
                        runs[name].append(run)
            done = number
    except OutOfTime:
        if not done:
            raise
    finally:
        bar.close()
    return {"rounds": done, "ways": {name: _figures(runs, name, done, errors.get(name)) for name in ways}}


def _figures(runs: dict[str, list[Run]], name: str, rounds: int, error: str | None) -> dict[str, Any]:
    if error:
        return {"error": error}
    first = next(iter(runs))
    base = statistics.median(run.step for run in runs[first][:rounds]) if runs[first] else None
    own = runs[name][:rounds]
    step = statistics.median(run.step for run in own)
    return {
        "prefill_ms": 1e3 * statistics.median(run.prefill for run in own),
        "step_ms": 1e3 * step,
        "ratio": step / base if base else None,
        "peak_gib": own[-1].peak,
        "runs_ms": [1e3 * run.step for run in own],
    }


def extraction_ways(bench: Bench, pairs: int) -> dict[str, Way]:
    """The floor and `tk.extract`, timed per pair."""
    chosen = extraction.texts(bench.processor, pairs)

    def timed(does: Any) -> Way:
        def way() -> Run:
            before, start = bench.mark(), bench.clock()
            with torch.device(bench.model.device):
                does()
            took = bench.clock() - start
            return Run(took, took / pairs, bench.peak_since(before))

        return way

    return {
        "floor": timed(lambda: extraction.floor(bench.model, bench.processor, chosen, 2048)),
        "extract": timed(lambda: tk.extract(bench.model, bench.processor, chosen, token_budget=2048)),
    }


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures; what it holds is not run again")
    parser.add_argument("--minutes", type=float, default=8.0, help="no new run is begun after (default: %(default)s)")
    parser.add_argument("--contexts", type=int, nargs="+", default=[512, 4096, 32768], help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=16, help="decoded per run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved runs of everything (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=512, help="pairs to extract from (default: %(default)s)")
    parser.add_argument("--only", default="", help="only parts whose name contains this, such as 'text, context 512'")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--backend", default="inductor", help="of torch.compile (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to try the script")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device here; --device cpu --tiny tries the script without one.")
    if args.device == "cpu":
        torch.set_num_threads(1)
    deadline = time.monotonic() + 60 * args.minutes
    dtype = getattr(torch, args.dtype)
    figures = Figures(
        args.out,
        {
            "device": torch.cuda.get_device_name() if args.device == "cuda" else platform.machine(),
            "date": time.strftime("%Y-%m-%d"),
            "dtype": args.dtype,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "truthkit": tk.__version__,
            "models": "tiny" if args.tiny else "Llama-3-8B's and LLaVA-1.5-7B's sizes, random weights",
            "tokens": args.tokens,
        },
    )
    chosen = [part for part in parts(sorted(args.contexts)) if args.only in part.key]
    left = [part for part in chosen if part.key not in figures.kept["parts"]]
    loaded: dict[str, Any] = {}
    while left and time.monotonic() < deadline:
        part = left.pop(0)
        if part.model not in loaded:
            loaded.clear()
            _free()
            build = gpu_models.text_model if part.model == "text" else gpu_models.image_model
            model, processor = build(args.device, dtype, tiny=args.tiny)
            loaded[part.model] = (
                model,
                processor,
                gpu_models.random_amateurs(model) if part.model == "text" else ({}, None),
            )
        model, processor, (amateurs, _held) = loaded[part.model]
        compiled = part.mode == "compiled"
        bench = Bench(model, processor, part.context, part.batch, args.tokens, compiled=compiled, backend=args.backend)
        ways = extraction_ways(bench, args.pairs) if part == EXTRACTION else bench.ways(amateurs)
        try:
            table = measure(ways, args.rounds, deadline, part.key)
        except OutOfTime:
            left.insert(0, part)
            break
        figures.add(part, table)
        del bench, ways
        _free()
    print(figures.markdown())
    if left:
        print(f"{len(left)} parts are left; run the same command again: {'; '.join(part.key for part in left)}")


if __name__ == "__main__":
    main()
