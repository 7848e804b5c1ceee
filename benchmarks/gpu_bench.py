"""The ways to decode that `gpu.py` times, each over one prompt length and batch."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import serial
import torch
from gpu_models import with_amateur
from PIL import Image
from transformers import CompileConfig, StoppingCriteria

import truthkit as tk

BETA, PASSAGE = 0.1, "In short, nobody knows what the first people said to each other."


class Run(NamedTuple):
    """One generation: seconds to the first token and per token after it, and GiB above the weights at the peak."""

    prefill: float
    step: float
    peak: float | None


Way = Callable[[], Run]


class Bench:
    """One model and one batch of equal prompts.

    Args:
        model: a text model, or an image-text model.
        processor: its tokenizer or processor.
        context: prompt tokens; an image-text model's prompt has its image and a question instead.
        batch: rows.
        tokens: decoded per run.
        compiled: whether steps run compiled over a static cache.
        backend: of `torch.compile`.
    """

    def __init__(
        self, model: Any, processor: Any, context: int, batch: int, tokens: int, *, compiled: bool, backend: str
    ):
        self.model, self.processor, self.batch, self.tokens, self.compiled = model, processor, batch, tokens, compiled
        self.options: dict[str, Any] = {}
        if compiled:
            config = CompileConfig(backend=backend, mode=None if backend != "inductor" else "reduce-overhead")
            config._compile_all_devices = True
            self.options = {"cache_implementation": "static", "compile_config": config}
        self.image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8))
        self.inputs = self._inputs(context, batch)

    def _inputs(self, context: int, batch: int) -> dict[str, torch.Tensor]:
        if hasattr(self.processor, "image_processor"):
            prompt = "USER: <image>\nIs there a dog in the image? ASSISTANT:"
            made = self.processor(images=[self.image] * batch, text=[prompt] * batch, return_tensors="pt")
            made["pixel_values"] = made["pixel_values"].to(self.model.dtype)
            return dict(made.to(self.model.device).items())
        text = "The history of science is the study of how people came to know the world. " * (context // 8)
        passage = self.processor(PASSAGE, add_special_tokens=False).input_ids
        ids = torch.tensor([self.processor(text).input_ids[: context - len(passage)] + passage] * batch)
        return {"input_ids": ids.to(self.model.device), "attention_mask": torch.ones_like(ids).to(self.model.device)}

    def clock(self) -> float:
        """Seconds: of the CPU here, of the wall once the device is done."""
        if self.model.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def generate(self, attach: Callable[[], AbstractContextManager[Any]] = nullcontext, *, rows: int = 1) -> Run:
        """`generate`, greedy, inside `attach()`; every prompt `rows` times."""
        ticks: list[float] = []
        count = 0

        class Watch(StoppingCriteria):
            def __call__(watch, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
                nonlocal count
                count += 1
                if count in (1, self.tokens):
                    ticks.append(self.clock())
                return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

        before, start = self.mark(), self.clock()
        with attach():
            self.model.generate(
                **{name: value.repeat(rows, *[1] * (value.dim() - 1)) for name, value in self.inputs.items()},
                do_sample=False,
                min_new_tokens=self.tokens,
                max_new_tokens=self.tokens,
                stopping_criteria=[Watch()],
                **self.options,
            )
        return self._run(before, start, ticks)

    def serial(self, loop: Iterator[int]) -> Run:
        """A loop of forwards, one after the other."""
        before, start, ticks = self.mark(), self.clock(), []
        with torch.no_grad():
            for token in range(self.tokens):
                next(loop)
                if token in (0, self.tokens - 1):
                    ticks.append(self.clock())
        return self._run(before, start, ticks)

    def mark(self) -> int | None:
        """The bytes in use, from where `peak_since` counts; None on a CPU."""
        if self.model.device.type == "cpu":
            return None
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()

    def peak_since(self, before: int | None) -> float | None:
        """GiB above the mark at the highest point."""
        return None if before is None else (torch.cuda.max_memory_allocated() - before) / 2**30

    def _run(self, before: int | None, start: float, ticks: list[float]) -> Run:
        return Run(ticks[0] - start, (ticks[1] - ticks[0]) / (self.tokens - 1), self.peak_since(before))

    def ways(self, amateurs: dict[str, str]) -> dict[str, Way]:
        """Every way by its name, greedy first; a decoder is built once, so that what is compiled for it is kept."""
        made = self._image_decoders() if "pixel_values" in self.inputs else self._text_decoders(amateurs)
        ways: dict[str, Way] = {
            "greedy": self.generate,
            "greedy, 2 x the rows": lambda: self.generate(rows=2),
            "greedy, 3 x the rows": lambda: self.generate(rows=3),
        }
        for name, make in made.items():
            ways[name] = functools.partial(self.generate, make)
        return ways if self.compiled else {**ways, **self._eager_only()}

    @property
    def _high(self) -> list[int]:
        """Every second layer of the upper half."""
        depth = self.model.config.num_hidden_layers
        return list(range(depth // 2, depth - 1, 2))

    def _text_decoders(self, amateurs: dict[str, str]) -> dict[str, Callable[[], Any]]:
        model, tokenizer = self.model, self.processor
        depth = model.config.num_hidden_layers
        high, three = self._high, [depth * share // 10 for share in (6, 7, 8)]
        vector = tk.SteeringVector({depth // 2: torch.randn(model.config.hidden_size) * 0.01})
        lol = {"amateur": amateurs["q and v"], "beta": BETA, "layers": three}

        def icd(which: str) -> Any:
            return tk.ICD(model, tokenizer, amateur=amateurs[which], beta=BETA)

        return {
            **{f"ICD, adapter on {which}": functools.cache(functools.partial(icd, which)) for which in amateurs},
            "LOL, 3 layers": functools.cache(lambda: tk.LOL(model, tokenizer, **lol)),
            "LOL, 3 layers, refocus": functools.cache(lambda: tk.LOL(model, tokenizer, **lol, refocus=True)),
            "CAD": functools.cache(lambda: tk.CAD(model, tokenizer, context=PASSAGE)),
            f"DoLa, {len(high)} layers": functools.cache(lambda: tk.DoLa(model, layers=high)),
            "steering, 1 layer": functools.cache(lambda: vector.steer(model, layers="all")),
            "steering, baked": lambda: vector.bake(model, layers="all"),
        }

    def _image_decoders(self) -> dict[str, Callable[[], Any]]:
        model, processor, image = self.model, self.processor, self.image
        images = [image] * self.batch

        def ritual() -> Any:
            return tk.RITUAL(model, processor, images=images)

        return {
            "RITUAL": functools.cache(ritual),
            "VCD": functools.cache(lambda: tk.VCD(model)),
            "M3ID": functools.cache(lambda: tk.M3ID(model, processor)),
            "RITUAL + VCD": functools.cache(lambda: ritual() + tk.VCD(model)),
        }

    def _eager_only(self) -> dict[str, Way]:
        """What runs outside the step, and the plain loops that it replaces (batch 1)."""
        model = self.model
        ways: dict[str, Way] = {
            f"contrastive search, k={k}": lambda k=k: self.generate(lambda: tk.ContrastiveSearch(model, top_k=k))  # type: ignore[misc]
            for k in (4, 8)
        }
        ways["fast_decoding"] = lambda: self.generate(lambda: tk.fast_decoding(model))
        if "pixel_values" in self.inputs or self.batch > 1:
            return ways
        ids, high = self.inputs["input_ids"], self._high
        ways["ICD, serial"] = self._serial_icd
        ways["DoLa, serial"] = lambda: self.serial(serial.dola(model, ids, high, BETA))
        for k in (4, 8):
            ways[f"contrastive search, k={k}, batch-expanded"] = lambda k=k: self.serial(  # type: ignore[misc]
                serial.contrastive_search(model, ids, 0.6, k)
            )
        return ways

    def _serial_icd(self) -> Run:
        adapted = with_amateur(self.model)
        base, other, ids = serial.cached_logits(adapted), serial.cached_logits(adapted), self.inputs["input_ids"]

        def without(token: torch.Tensor) -> torch.Tensor:
            with adapted.disable_adapter():
                return base(token)

        try:
            return self.serial(serial.contrast(without, other, ids, ids, BETA))
        finally:
            adapted.unload()
