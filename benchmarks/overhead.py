"""What each decoder costs per token, as a ratio to greedy decoding in the same run.

    python benchmarks/overhead.py --contexts 128 512 2048 --dtypes float32 bfloat16 --out overhead.json

Beside every decoder stand the plain way (one forward per view, `serial.py`), its processor form, and the machine's own
floor: a bare forward of as many rows, in the same layout. Times are CPU time of a decoding step, medians over
interleaved rounds, one thread by default. The model is the bundled one; the amateur is a random rank-8 LoRA on the
query and value projections.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import peft
import serial
import torch
from tqdm import tqdm
from transformers import StoppingCriteria

import truthkit as tk

BETA, LAYERS = 0.1, [20, 23, 26]
Steps = Callable[[], list[float]]


class Clock(StoppingCriteria):
    """Notes the CPU time at which every token is done."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self.ticks.append(time.process_time())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class Bench:
    """One model, one context length: every way to decode, each returning the CPU seconds of its steps."""

    def __init__(self, model: Any, amateur: Any, tokenizer: Any, context: int, tokens: int):
        self.model, self.amateur, self.tokenizer, self.tokens = model, amateur, tokenizer, tokens
        text = "The history of science is the study of how people came to know the world. " * (context // 8)
        self.passage = "In short, nobody knows."
        ids = tokenizer(text).input_ids[: context - 8] + tokenizer(self.passage, add_special_tokens=False).input_ids
        self.ids = torch.tensor([ids])

    def generate(self, attach: Any = None, model: Any = None, **options: Any) -> list[float]:
        clock = Clock()
        with attach or nullcontext():
            (model or self.model).generate(
                self.ids,
                attention_mask=torch.ones_like(self.ids),
                do_sample=False,
                min_new_tokens=self.tokens,
                max_new_tokens=self.tokens,
                stopping_criteria=[clock],
                **options,
            )
        return [b - a for a, b in itertools.pairwise(clock.ticks)]

    def prefill(self, attach: Callable[[], Any]) -> Steps:
        """Reading the prompt up to the first token, instead of decoding."""

        def run() -> list[float]:
            clock = Clock()
            with attach():
                start = time.process_time()
                self.model.generate(self.ids, max_new_tokens=1, stopping_criteria=[clock])
            return [0.0, 0.0, clock.ticks[0] - start]

        return run

    def serial(self, loop: Iterator[int]) -> list[float]:
        ticks = []
        with torch.no_grad():
            for _ in range(self.tokens):
                next(loop)
                ticks.append(time.process_time())
        return [b - a for a, b in itertools.pairwise(ticks)]

    def serial_icd(self) -> Iterator[int]:
        def without(ids: torch.Tensor) -> torch.Tensor:
            with self.amateur.disable_adapter():
                return base(ids)

        base, other = serial.cached_logits(self.amateur), serial.cached_logits(self.amateur)
        return serial.contrast(without, other, self.ids, self.ids, BETA)

    def bare(self, rows: int, layout: Any = None) -> list[float]:
        """A forward of so many rows and nothing else."""
        cache, seconds = tk.GrowingCache(config=self.model.config), []
        with torch.no_grad(), layout or tk.fast_decoding(self.model):
            self.model(self.ids.repeat(rows, 1), cache=cache, logits_to_keep=1)
            token = self.ids[:, -1:].repeat(rows, 1)
            for _ in range(self.tokens):
                start = time.process_time()
                self.model(token, cache=cache, logits_to_keep=1)
                seconds.append(time.process_time() - start)
        return seconds[1:]

    def steered(self) -> dict[str, Steps]:
        """Every block's output, with vectors too short to change a token; half of all tokens meet the conditions."""
        model, draw = self.model, torch.Generator().manual_seed(0)
        vectors = {at: 1e-4 * torch.randn(576, generator=draw) for at in range(30)}
        one, wide = {14: vectors[14]}, {14: torch.randn(576, generator=draw)}
        chosen = range(0, 30, 2)
        heads = {at: 1e-4 * torch.nn.functional.pad(torch.randn(64, generator=draw), (0, 512)) for at in chosen}
        conditions: dict[str, Any] = {
            "cosine": tk.Cosine(vectors, above=0.0),
            "prompt": tk.Cosine(wide, above=0.0, of="last", layer=14),
            "entropy": tk.Entropy(above=1.0),
        }
        blocks: dict[str, Any] = {
            "steering, 1 layer": lambda: tk.Steering(model, one),
            "steering, 30 layers": lambda: tk.Steering(model, vectors),
            "steering, 1 layer, where cosine": lambda: tk.Steering(model, one, where=conditions["cosine"]),
            "steering, 1 layer, where prompt": lambda: tk.Steering(model, one, where=conditions["prompt"]),
            "steering, 1 layer, where entropy": lambda: tk.Steering(model, one, where=conditions["entropy"]),
            "steering, 30 layers, where cosine": lambda: tk.Steering(model, vectors, where=conditions["cosine"]),
            "steering, 30 layers, where entropy": lambda: tk.Steering(model, vectors, where=conditions["entropy"]),
            "steering, VTI": lambda: tk.VTI(model, vectors, alpha_text=1e-3),
            "steering, ITI, 15 heads": lambda: tk.ITI(model, tk.SteeringVector(heads, 30, "heads"), alpha=1.0),
            "steering, VISTA": lambda: tk.VISTA(model, vectors=vectors, strength=1e-4),
            "steering, VISTA without exits": lambda: tk.VISTA(model, vectors=vectors, strength=1e-4, share=0.0),
            "ExitsMean, 6 layers": lambda: tk.ExitsMean(model),
        }
        return {label: lambda make=make: self.generate(make()) for label, make in blocks.items()}  # type: ignore[misc]

    def ways(self, adapter: str) -> dict[str, Steps]:
        model, tokenizer, high = self.model, self.tokenizer, list(range(14, 29, 2))
        icd: dict[str, Any] = {"amateur": adapter, "beta": BETA}
        lol: dict[str, Any] = {**icd, "layers": LAYERS}
        refocus: dict[str, Any] = {**lol, "refocus": True}
        cad: dict[str, Any] = {"context": self.passage}
        of_prompt = {"greedy": nullcontext, "DoLa, 1 layer": lambda: tk.DoLa(model, layers=[21])}
        of_prompt["Activation Decoding"] = lambda: tk.ActivationDecoding(model)
        ways: dict[str, Steps] = {
            "greedy": lambda: self.generate(),
            "greedy, growing cache": lambda: self.generate(cache=tk.GrowingCache(config=model.config)),
            "greedy, growing cache, fast_decoding": lambda: self.generate(
                tk.fast_decoding(model), cache=tk.GrowingCache(config=model.config)
            ),
            "floor: 1 row": lambda: self.bare(1),
            "floor: 2 rows": lambda: self.bare(2),
            "floor: 3 rows": lambda: self.bare(3),
            "floor: 2 rows, plain layout": lambda: self.bare(2, nullcontext()),
            "floor: 4 rows, plain layout": lambda: self.bare(4, nullcontext()),
            "ICD adapter": lambda: self.generate(tk.ICD(model, tokenizer, **icd)),
            "ICD adapter, serial": lambda: self.serial(self.serial_icd()),
            "ICD adapter, processor": lambda: self.generate(
                logits_processor=[tk.ICDLogitsProcessor(model, tokenizer, **icd)]
            ),
            "LOL adapter, 3 layers": lambda: self.generate(tk.LOL(model, tokenizer, **lol)),
            "LOL adapter, 3 layers, refocus": lambda: self.generate(tk.LOL(model, tokenizer, **refocus)),
            "CAD": lambda: self.generate(tk.CAD(model, tokenizer, **cad)),
            "AdaCAD": lambda: self.generate(tk.AdaCAD(model, tokenizer, **cad)),
            "COIECD": lambda: self.generate(tk.COIECD(model, tokenizer, **cad)),
            "DoLa, 8 layers": lambda: self.generate(tk.DoLa(model, layers=high)),
            "DoLa, 9 layers": lambda: self.generate(tk.DoLa(model, layers=tk.DeCo(model).layers)),
            "DeCo, 9 layers": lambda: self.generate(tk.DeCo(model)),
            "DoLa, 29 layers": lambda: self.generate(tk.DoLa(model, layers="all")),
            "SLED, 8 layers": lambda: self.generate(tk.SLED(model, layers=high)),
            "SLED, 29 layers": lambda: self.generate(tk.SLED(model)),
            "Activation Decoding": lambda: self.generate(tk.ActivationDecoding(model)),
            "Activation Decoding, processor": lambda: self.generate(
                logits_processor=[tk.ActivationDecodingLogitsProcessor(model)]
            ),
            **{f"prompt: {name}": self.prefill(attach) for name, attach in of_prompt.items()},
            "DoLa, 8 layers, serial": lambda: self.serial(serial.dola(model, self.ids, high, BETA)),
            "DoLa, 8 layers, processor": lambda: self.generate(
                logits_processor=[tk.DoLaLogitsProcessor(model, layers=high)]
            ),
        }
        ways |= self.steered()
        ways["beam search, 5 beams"] = lambda: self.generate(num_beams=5)
        ways["OPERA, 5 beams"] = lambda: self.generate(tk.OPERA(model))
        ways["OPERA, 5 beams, serial"] = lambda: self.serial(serial.opera(model, self.ids, 5, 5, 50.0))
        for k in (4, 8):
            ways[f"contrastive search, k={k}"] = lambda k=k: self.generate(tk.ContrastiveSearch(model, top_k=k))  # type: ignore[misc]
            ways[f"contrastive search, k={k}, serial"] = lambda k=k: self.serial(  # type: ignore[misc]
                serial.contrastive_search(model, self.ids, 0.6, k)
            )
        return ways


def random_amateur(model: Any, folder: Path) -> str:
    """A LoRA adapter with random weights, saved in `folder`."""
    torch.manual_seed(0)
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    adapted.save_pretrained(folder)
    adapted.unload()
    return str(folder)


def measure(
    dtype: torch.dtype, context: int, tokens: int, rounds: int, adapter: Path, only: list[str]
) -> dict[str, Any]:
    """Milliseconds per token and ratio to greedy of every way to decode whose name begins with one of `only`."""
    model, tokenizer = tk.load(dtype=dtype)
    name = random_amateur(model, adapter)
    twin, _ = tk.load(dtype=dtype, adapter=name)
    bench = Bench(model, twin, tokenizer, context, tokens)
    ways = {label: way for label, way in bench.ways(name).items() if label == "greedy" or label.startswith(tuple(only))}
    seconds: dict[str, list[float]] = {label: [] for label in ways}
    for _ in tqdm(range(rounds), desc=f"{dtype}, context {context}"):
        for label, way in ways.items():
            seconds[label].append(statistics.median(way()[2:]))
    greedy = statistics.median(seconds["greedy"])
    medians = {label: statistics.median(runs) for label, runs in seconds.items()}
    return {
        label: {"ms": 1e3 * median, "ratio": median / greedy, "runs_ms": [1e3 * run for run in seconds[label]]}
        for label, median in medians.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--tokens", type=int, default=12, help="decoded tokens per run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved runs of everything (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--only", default=[""], nargs="+", help="measure greedy and the lines that begin with one of these"
    )
    parser.add_argument("--out", type=Path, help="write all figures here as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in args.dtypes:
            for context in args.contexts:
                key = f"{dtype}, context {context}"
                results[key] = measure(
                    getattr(torch, dtype), context, args.tokens, args.rounds, Path(folder) / dtype, args.only
                )
                print(f"\n{key} ({args.threads} thread, {platform.processor() or platform.machine()})")
                for label, figures in results[key].items():
                    print(f"  {label:40} {figures['ms']:8.1f} ms  {figures['ratio']:5.2f} x greedy")
                if args.out:
                    args.out.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
