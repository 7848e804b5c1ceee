"""What each decoder's compiled decode step costs, as a ratio to compiled greedy search, beside eager against eager.

    python benchmarks/compiled.py --rounds 5 --out compiled        # compiled.json and compiled.md
    python benchmarks/compiled.py --parts images                   # a part of it
    python benchmarks/compiled.py --tiny --out compiled            # seconds, to see that it runs

Static caches, torch's inductor, CPU time of a decoding step, medians over interleaved rounds. The text model is the
bundled one, the amateurs are random rank-8 LoRAs; RITUAL runs on the model of `images.py`. On a CPU decoders run in the
layout of `tk.fast_decoding`, so greedy search stands there with it too. "bare" is a compiled forward of as many rows,
in that layout, and nothing else. Beside the times stand the graphs that torch made over all rounds, each of which
enters every block anew, and the breaks in them: 1 and 0 are wanted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import images
import peft
import torch
from torch._dynamo.utils import counters
from tqdm import tqdm
from transformers import CompileConfig, LlamaConfig, LlamaForCausalLM, StaticCache, StoppingCriteria

import truthkit as tk

Run = Callable[[], list[float]]
"""One round: the CPU seconds of its steps."""
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SKIP = 2
"""Steps of every run that are not counted."""
GREEDY, FAST = "greedy", "greedy, fast_decoding"


class Clock(StoppingCriteria):
    """Notes the CPU time at which every token is done."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self.ticks.append(time.process_time())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class Bench:
    """A model and its prompt, decoded compiled and uncompiled."""

    def __init__(self, model: Any, inputs: dict[str, torch.Tensor], tokens: int, config: CompileConfig):
        self.model, self.inputs, self.tokens, self.config = model, inputs, tokens, config

    def generate(self, block: Any, *, compiled: bool) -> list[float]:
        clock, static = Clock(), {"cache_implementation": "static", "compile_config": self.config}
        with block:
            self.model.generate(
                **self.inputs,
                do_sample=False,
                min_new_tokens=self.tokens,
                max_new_tokens=self.tokens,
                stopping_criteria=[clock],
                **(static if compiled else {}),
            )
        return [b - a for a, b in itertools.pairwise(clock.ticks)]

    def bare(self, forward: Any, rows: int) -> list[float]:
        """Compiled forwards of so many rows in the layout of decoders; those of the prompt are not."""
        wide = {name: value.repeat(rows, *[1] * (value.dim() - 1)) for name, value in self.inputs.items()}
        length, seconds = wide["input_ids"].shape[1], []
        cache = StaticCache(config=self.model.config.get_text_config(), max_cache_len=length + self.tokens)
        with torch.no_grad(), tk.fast_decoding(self.model):
            self.model(**wide, cache=cache, logits_to_keep=1)
            token = wide["input_ids"][:, -1:].clone()
            for place in range(length, length + self.tokens - 1):
                positions = torch.full((1, 1), place)
                start = time.process_time()
                forward(input_ids=token, position_ids=positions, cache=cache, logits_to_keep=1)
                seconds.append(time.process_time() - start)
        return seconds

    def both(self, name: str, block: Callable[[], Any] = nullcontext) -> dict[str, Run]:
        return {
            f"{name}, eager": lambda: self.generate(block(), compiled=False),
            f"{name}, compiled": lambda: self.generate(block(), compiled=True),
        }

    def kept(self, name: str, block: Any) -> dict[str, Run]:
        """The same with one object for all rounds."""
        return self.both(name, lambda: block)

    def greedy(self) -> dict[str, Run]:
        return self.both(GREEDY) | self.both(FAST, lambda: tk.fast_decoding(self.model))

    def bare_ways(self, *counts: int) -> dict[str, Run]:
        forwards = {rows: self._compiled() for rows in counts}
        return {f"bare {rows} rows, compiled": lambda r=rows: self.bare(forwards[r], r) for rows in counts}  # type: ignore[misc]

    def _compiled(self) -> Any:
        forward = self.model.forward
        return torch.compile(lambda **kwargs: forward(**kwargs), **self.config.to_dict() | {"dynamic": False})


def random_amateur(model: Any, folder: Path, targets: list[str]) -> str:
    """A LoRA adapter with random weights, saved in `folder`."""
    torch.manual_seed(0)
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=8, lora_alpha=16, target_modules=targets, init_lora_weights=False)
    )
    adapted.save_pretrained(folder)
    adapted.unload()
    return str(folder)


def of_text(folder: Path, args: argparse.Namespace, config: CompileConfig) -> dict[str, Run]:
    """Greedy search, bare forwards, and the decoders and steering of text models."""
    model, tokenizer = tk.load(dtype=torch.float32)
    ids = tokenizer("The history of science is the study of how people came to know. " * args.context).input_ids
    passage = "In short, nobody knows."
    tail = tokenizer(passage, add_special_tokens=False).input_ids
    if args.tiny:
        shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **shape)).eval()
    prompt = torch.tensor([ids[: args.context - len(tail)] + tail])
    bench = Bench(model, {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}, args.tokens, config)
    layers = range(model.config.num_hidden_layers)
    queries = random_amateur(model, folder / "queries", ["q_proj", "v_proj"])
    everything = random_amateur(model, folder / "all", ALL_LINEAR)
    lower = [0] if args.tiny else [20, 23, 26]
    torch.manual_seed(0)
    vectors = {layer: torch.randn(model.config.hidden_size) for layer in layers}
    return {
        **bench.greedy(),
        **bench.bare_ways(1, 2, 3),
        **bench.kept("DoLa", tk.DoLa(model, layers=[0] if args.tiny else list(range(14, 29, 2)))),
        **bench.kept("ICD, LoRA on q and v", tk.ICD(model, tokenizer, amateur=queries)),
        **bench.kept("ICD, LoRA on all linear layers", tk.ICD(model, tokenizer, amateur=everything)),
        **bench.kept("LOL, refocus", tk.LOL(model, tokenizer, amateur=queries, layers=lower, refocus=True)),
        **bench.kept("CAD", tk.CAD(model, tokenizer, context=passage)),
        **bench.kept("steering, all layers", tk.Steering(model, vectors, strength=0.1)),
    }


def of_images(args: argparse.Namespace, config: CompileConfig) -> dict[str, Run]:
    """Greedy search, bare forwards and RITUAL with one image."""
    model, processor = images.build(torch.float32, "cpu", large=False)
    looks = images.Bench(model, processor, args.tokens)
    bench = Bench(model, looks.inputs, args.tokens, config)
    ritual = tk.RITUAL(model, processor, images=looks.image)
    ways = {**bench.greedy(), **bench.bare_ways(1, 2), **bench.kept("RITUAL", ritual)}
    return {f"image: {name}": way for name, way in ways.items()}


def measure(ways: dict[str, Run], rounds: int) -> Iterator[dict[str, Any]]:
    """After every round each way's milliseconds per step, its ratio to greedy search, and what was compiled for it."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    graphs, breaks = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0)

    def figures(name: str) -> dict[str, Any]:
        part, kind = ("image: " if name.startswith("image: ") else ""), name.rpartition(", ")[2]
        beside = {plain: medians[name] / medians[f"{part}{plain}, {kind}"] for plain in (GREEDY, FAST)}
        if kind == "compiled":
            bare = [other for other in medians if other.startswith(f"{part}bare")]
            beside |= {other.removeprefix(part): medians[name] / medians[other] for other in bare}
        runs = [1e3 * run for run in seconds[name][1:]]
        return {"ms": 1e3 * medians[name], "over": beside, "runs_ms": runs} | {
            "graphs": graphs[name],
            "breaks": breaks[name],
        }

    for number in tqdm(range(rounds + 1)):
        for name, way in ways.items():
            counters.clear()
            seconds[name].append(statistics.median(way()[SKIP:]))
            graphs[name] += counters["stats"]["unique_graphs"]
            breaks[name] += sum(counters["graph_break"].values())
        if number:  # the first one compiles
            medians = {name: statistics.median(runs[1:]) for name, runs in seconds.items()}
            yield {name: figures(name) for name in ways}


def markdown(results: dict[str, Any]) -> str:
    """A table with a line for each thing that was run."""
    lines = [
        "| | eager | compiled | compiled, over fast_decoding | over bare rows | graphs, breaks |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in dict.fromkeys(name.removesuffix(", eager").removesuffix(", compiled") for name in results):
        eager, made = results.get(f"{name}, eager"), results[f"{name}, compiled"]["over"]
        bare = ", ".join(f"{value:.2f} of {other.split()[1]}" for other, value in made.items() if "bare" in other)
        figures = [f"{eager['over'][GREEDY]:.2f}" if eager else "", f"{made[GREEDY]:.2f}", f"{made[FAST]:.2f}", bare]
        counted = "{graphs}, {breaks}".format(**results[f"{name}, compiled"])
        lines.append(f"| {' | '.join([name, *figures, counted])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=128, help="tokens of the prompt (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=20, help="decoded tokens per run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved runs of everything (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--backend", default="inductor", help="of torch.compile (default: %(default)s)")
    parser.add_argument("--only", nargs="+", default=[""], help="measure greedy search and what contains one of these")
    parser.add_argument("--parts", nargs="+", choices=["text", "images"], default=["text", "images"])
    parser.add_argument("--tiny", action="store_true", help="a random model of two layers, and no compiler")
    parser.add_argument("--out", type=Path, help="write PATH.json and PATH.md")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.tiny:
        args.backend, args.context, args.tokens, args.rounds, args.parts = "eager", 16, 6, 1, ["text"]
    config = CompileConfig(backend=args.backend, mode="default")
    config._compile_all_devices = True  # for plain greedy search; in truthkit's blocks a config is enough
    warnings.filterwarnings("error", message="decode steps run uncompiled")

    with tempfile.TemporaryDirectory() as folder:
        ways = of_text(Path(folder), args, config) if "text" in args.parts else {}
        ways |= of_images(args, config) if "images" in args.parts else {}
        kept = {name: way for name, way in ways.items() if any(one in name for one in ("greedy", *args.only))}
        for done, results in enumerate(measure(kept, args.rounds), 1):
            table = markdown(results)
            about = vars(args) | {"torch": torch.__version__, "rounds": done, "out": str(args.out)}
            if args.out:  # after every round, so that what was measured is there whenever it ends
                args.out.with_suffix(".json").write_text(json.dumps({"about": about, "results": results}, indent=2))
                args.out.with_suffix(".md").write_text(table)
    print(f"float32, context {args.context}, {args.threads} thread, {args.backend}, {platform.processor()}\n\n{table}")


if __name__ == "__main__":
    main()
