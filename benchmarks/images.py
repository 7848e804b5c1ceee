"""What image-text decoders cost, prefill and decode apart, as ratios to greedy decoding in the same run.

    python benchmarks/images.py --dtypes float32 bfloat16 --out images.json

The model is LLaVA's architecture around the bundled language model, with a random ViT-S/14 of 336 pixels in front: 576
image tokens, random answers, real costs. Beside every decoder stand the authors' way (a forward per view, each with its
own cache and its own pass through the vision tower) and the machine's floor: a bare forward of as many rows. `--large`
takes a random model of LLaVA-1.5-7B's size instead, for a GPU. Times are CPU time (on a GPU wall time, synchronised),
medians over interleaved rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import serial
import torch
from PIL import Image
from tqdm import tqdm
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    StoppingCriteria,
)

import truthkit as tk
from truthkit.images.noise import diffusion_noise

Times = tuple[float, float]
"""Seconds until the first token, and per token after it."""


def build(dtype: torch.dtype, device: str, large: bool) -> tuple[Any, Any]:
    """The model and its processor."""
    base, tokenizer = tk.load(dtype=dtype)
    vision = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 6}
    text = base.config
    if large:
        vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
        text = LlamaConfig(vocab_size=base.config.vocab_size)  # its defaults are Llama-2-7B's sizes
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    config = LlavaConfig(
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_config=CLIPVisionConfig(image_size=336, patch_size=14, **vision),
        text_config=text,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = LlavaForConditionalGeneration._from_config(config, dtype=dtype).eval()
    if not large:
        model.model.language_model.load_state_dict(base.model.state_dict())
        model.lm_head.load_state_dict(base.lm_head.state_dict())
    model.resize_token_embeddings(len(tokenizer))
    model.generation_config.pad_token_id = 0
    return model, llava_processor(tokenizer, 336)


def llava_processor(tokenizer: Any, side: int) -> LlavaProcessor:
    """LLaVA's processor for square pictures of `side` pixels in patches of 14."""
    return LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template="USER: {{ messages[0]['content'][-1]['text'] }} ASSISTANT:",
    )


class Bench:
    """Every way to decode one prompt with one image."""

    def __init__(self, model: Any, processor: Any, tokens: int):
        self.model, self.processor, self.tokens = model, processor, tokens
        self.image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8))
        prompt = "USER: <image>\nIs there a dog in the image? ASSISTANT:"
        made = processor(images=self.image, text=prompt, return_tensors="pt").to(model.device)
        self.inputs = dict(made.items())
        self.inputs["pixel_values"] = self.inputs["pixel_values"].to(model.dtype)

    def clock(self) -> float:
        if self.model.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def generate(self, attach: Any = None, **options: Any) -> Times:
        ticks = [self.clock()]

        class Watch(StoppingCriteria):
            def __call__(watch, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
                ticks.append(self.clock())
                return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

        with attach or nullcontext():
            self.model.generate(
                **self.inputs,
                do_sample=False,
                min_new_tokens=self.tokens,
                max_new_tokens=self.tokens,
                stopping_criteria=[Watch()],
                **options,
            )
        return _split(ticks)

    def serial(self, others: list[dict[str, torch.Tensor]]) -> Times:
        """The views one after the other: RITUAL's or VCD's sum of logits, with caches of their own."""
        looks = [_look(self.model, given) for given in (self.inputs, *others)]
        ticks, token = [self.clock()], None
        with torch.no_grad():
            for _ in range(self.tokens):
                main, *rest = [look(token) for look in looks]
                scores = main + sum(rest)
                token = serial.plausible(scores, main, 0.1).argmax(-1, keepdim=True)
                ticks.append(self.clock())
        return _split(ticks)

    def bare(self, rows: int) -> Times:
        """A forward of so many rows, each with an image, and nothing else."""
        cache = tk.GrowingCache(config=self.model.config.get_text_config())
        wide = {name: value.repeat(rows, *[1] * (value.dim() - 1)) for name, value in self.inputs.items()}
        ticks = [self.clock()]
        with torch.no_grad(), tk.fast_decoding(self.model):
            self.model(**wide, cache=cache, logits_to_keep=1)
            ticks.append(self.clock())
            token = wide["input_ids"][:, -1:]
            for _ in range(self.tokens - 1):
                self.model(input_ids=token, cache=cache, logits_to_keep=1)
                ticks.append(self.clock())
        return _split(ticks)

    def ways(self) -> dict[str, Callable[[], Times]]:
        model, processor, image = self.model, self.processor, self.image
        noisy = {**self.inputs, "pixel_values": diffusion_noise(self.inputs["pixel_values"], seeds=[0])}
        blind = {
            name: self.inputs[name][:, self.inputs["input_ids"][0] != model.config.image_token_id]
            for name in ("input_ids", "attention_mask")
        }
        ritual = lambda: tk.RITUAL(model, processor, images=image)  # noqa: E731
        plus = lambda: tk.RITUALPlus(model, processor, images=image)  # noqa: E731
        return {
            "greedy": lambda: self.generate(),
            "greedy, growing cache, fast_decoding": lambda: self.generate(
                tk.fast_decoding(model), cache=tk.GrowingCache(config=model.config.get_text_config())
            ),
            "floor: 1 row": lambda: self.bare(1),
            "floor: 2 rows": lambda: self.bare(2),
            "floor: 3 rows": lambda: self.bare(3),
            "RITUAL": lambda: self.generate(ritual()),
            "VCD": lambda: self.generate(tk.VCD(model)),
            "DoLa": lambda: self.generate(tk.DoLa(model)),
            "SLED": lambda: self.generate(tk.SLED(model, layers="high")),
            "DeCo": lambda: self.generate(tk.DeCo(model)),
            "Activation Decoding": lambda: self.generate(tk.ActivationDecoding(model)),
            "RITUAL or VCD, serial": lambda: self.serial([noisy]),
            "M3ID": lambda: self.generate(tk.M3ID(model, processor)),
            "M3ID, serial": lambda: self.serial([blind]),
            "RITUAL + VCD": lambda: self.generate(ritual() + tk.VCD(model)),
            "RITUAL + VCD, serial": lambda: self.serial([noisy, noisy]),
            "RITUAL+ (choice included)": lambda: self.generate(plus()),
            "PAI": lambda: self.generate(tk.PAI(model, processor)),
            "SID": lambda: self.generate(tk.SID(model)),
            "AvisC": lambda: self.generate(tk.AvisC(model)),
            "RITUAL, processor": lambda: self.generate(
                logits_processor=[tk.RITUALLogitsProcessor(model, processor, images=image)]
            ),
        }


def _look(model: Any, given: dict[str, torch.Tensor]) -> Callable[[torch.Tensor | None], torch.Tensor]:
    cache = tk.GrowingCache(config=model.config.get_text_config())

    def logits(token: torch.Tensor | None) -> torch.Tensor:
        inputs = given if token is None else {"input_ids": token}
        return model(**inputs, cache=cache, logits_to_keep=1).logits[:, -1].float()

    return logits


def _split(ticks: list[float]) -> Times:
    steps = [b - a for a, b in itertools.pairwise(ticks[1:])]
    return ticks[1] - ticks[0], statistics.median(steps[2:])


def measure(bench: Bench, rounds: int, name: str, only: list[str] | None = None) -> dict[str, Any]:
    """Milliseconds of the prefill and per token of every way, or of some and greedy, and their ratios to greedy."""
    ways = {label: way for label, way in bench.ways().items() if only is None or label in ("greedy", *only)}
    times: dict[str, list[Times]] = {label: [] for label in ways}
    for way in ways.values():
        way()  # the first run of each is slow
    for _ in tqdm(range(rounds), desc=name):
        for label, way in ways.items():
            times[label].append(way())
    median = {label: [statistics.median(part) for part in zip(*runs, strict=True)] for label, runs in times.items()}
    first, step = median["greedy"]
    return {
        label: {
            "prefill_ms": 1e3 * own_first,
            "prefill_ratio": own_first / first,
            "step_ms": 1e3 * own_step,
            "step_ratio": own_step / step,
            "runs": times[label],
        }
        for label, (own_first, own_step) in median.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--tokens", type=int, default=16, help="decoded tokens per run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved runs of everything (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--large", action="store_true", help="a random model of LLaVA-1.5-7B's size")
    parser.add_argument(
        "--only", nargs="+", metavar="WAY", help="these ways beside greedy, by their names in the table"
    )
    parser.add_argument("--out", type=Path, help="write all figures here as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    results: dict[str, Any] = {}
    for dtype in args.dtypes:
        model, processor = build(getattr(torch, dtype), args.device, args.large)
        results[dtype] = measure(Bench(model, processor, args.tokens), args.rounds, dtype, args.only)
        print(f"\n{dtype}, {args.device} ({args.threads} thread, {platform.processor() or platform.machine()})")
        print(f"  {'':38} {'prefill':>20}   {'per token':>20}")
        for label, f in results[dtype].items():
            print(
                f"  {label:38} {f['prefill_ms']:8.0f} ms {f['prefill_ratio']:5.2f} x "
                f"  {f['step_ms']:8.1f} ms {f['step_ratio']:5.2f} x"
            )
        if args.out:
            args.out.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
