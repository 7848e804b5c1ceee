"""Items put to a model under a decoder: answers written, or given choices scored; in batches, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from truthkit.decoding.answers import encode_prompts
from truthkit.decoding.prompts import text_tokenizer
from truthkit.decoding.spec import DecoderSpec
from truthkit.errors import ArgumentError
from truthkit.evaluation.records import Records, content_key
from truthkit.evaluation.sampling import SeededSampling
from truthkit.images.reading import read_image

OnBatch = Callable[[int], None]
"""Called with the number of items that were just done."""


@dataclass(frozen=True)
class Item:
    """One thing to ask.

    Attributes:
        id: unique in the task.
        prompt: a user's message; with `raw`, text to go on from.
        images: paths of the images in front of it.
        choices: continuations whose log-probability is asked for, the space in front included; none: write an answer.
        raw: no chat template.
    """

    id: str
    prompt: str
    images: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    raw: bool = False

    @property
    def key(self) -> str:
        """Of the content, wherever the item stands in its file."""
        return content_key(self.id, self.prompt, self.images, self.choices)


@dataclass(frozen=True)
class Asking:
    """How items are put to a model.

    Attributes:
        model, processor: as from `tk.load`.
        decoder: for every batch anew where it needs the batch's images, else once.
        supplied: arguments of the decoder that only the caller knows, an amateur for one.
        max_new_tokens: of written answers.
        sample: draw tokens, by each item's own seed.
        temperature, top_p: of sampling.
        seed: another one gives other draws.
        batch_size: items at a time; halved whenever the memory does not suffice.
    """

    model: Any
    processor: Any
    decoder: DecoderSpec
    supplied: dict[str, Any]
    max_new_tokens: int = 32
    sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    batch_size: int = 16

    def run(self, items: Sequence[Item], records: Records, on_batch: OnBatch = lambda _count: None) -> None:
        """Ask all items that have no record yet, longest first, and record each as soon as its batch is done."""
        todo = sorted((item for item in items if item.key not in records.done), key=_size, reverse=True)
        on_batch(len(items) - len(todo))
        fixed = (
            None if self.decoder.takes("images") else self.decoder.build(self.model, self.processor, **self.supplied)
        )
        size = self.batch_size
        while todo:
            batch = todo[:size]
            start = time.perf_counter()
            try:
                outputs = self.choose(batch, fixed) if batch[0].choices else self.write(batch, fixed)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error) or size == 1:
                    raise
                size = max(size // 2, 1)
                continue
            seconds = (time.perf_counter() - start) / len(batch)
            records.append(
                [
                    {"key": item.key, "id": item.id, "prompt": item.prompt, "images": item.images, "output": output}
                    | ({"choices": item.choices} if item.choices else {})
                    | {"seed": _seed(item, self.seed), "seconds": round(seconds, 4)}
                    for item, output in zip(batch, outputs, strict=True)
                ]
            )
            del todo[:size]
            on_batch(len(batch))

    def write(self, batch: Sequence[Item], fixed: Any = None) -> list[str]:
        """The answers to a batch."""
        images = [[read_image(path) for path in item.images] for item in batch]
        inputs = encode_prompts(self.processor, [item.prompt for item in batch], images, raw=batch[0].raw)
        tokenizer = text_tokenizer(self.processor, "an answer")
        options: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "do_sample": False}
        options |= {"temperature": None, "top_p": None, "top_k": None}
        if self.sample:
            seeds = [_seed(item, self.seed) for item in batch]
            options["logits_processor"] = [SeededSampling(seeds, temperature=self.temperature, top_p=self.top_p)]
        moved = {name: value.to(self.model.device) for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        with ExitStack() as stack:
            supplied = self.supplied | {"images": images}
            stack.enter_context(fixed or self.decoder.build(self.model, self.processor, **supplied))
            output = self.model.generate(**moved, **options)
        return [
            tokenizer.decode(row, skip_special_tokens=True).strip() for row in output[:, inputs["input_ids"].shape[1] :]
        ]

    def choose(self, batch: Sequence[Item], fixed: Any = None) -> list[list[float]]:
        """The log-probability of every choice of a batch: the sum over its tokens, natural logarithm.

        Prompt and choice are tokenised together and cut where the prompt's own tokens end.
        """
        if any(item.images for item in batch):
            raise ArgumentError("choices are scored for text only; ask for a written answer where there are images.")
        tokenizer = text_tokenizer(self.processor, "a choice")
        rows, starts = [], []
        for item in batch:
            start = len(tokenizer(item.prompt).input_ids)
            for choice in item.choices:
                rows.append(tokenizer(item.prompt + choice).input_ids)
                starts.append(start)
        scores: list[float] = [0.0] * len(rows)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        with fixed or self.decoder.build(self.model, self.processor, **self.supplied), torch.no_grad():
            for first in range(0, len(order), self.batch_size):
                some = order[first : first + self.batch_size]
                for i, score in zip(
                    some, self._scored([rows[i] for i in some], [starts[i] for i in some]), strict=True
                ):
                    scores[i] = score
        ends = iter(scores)
        return [[next(ends) for _ in item.choices] for item in batch]

    def _scored(self, rows: list[list[int]], starts: list[int]) -> list[float]:
        """Log-probability of each row from its start on."""
        width = max(map(len, rows))
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, width - len(row) :], mask[i, width - len(row) :] = torch.tensor(row), 1
        keep = max(len(row) - start for row, start in zip(rows, starts, strict=True)) + 1
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        inputs = {name: value.to(self.model.device) for name, value in inputs.items()}
        logits = self.model(**inputs, logits_to_keep=keep, use_cache=False).logits.float()
        log_p = logits[:, -keep:-1].log_softmax(dim=-1)
        targets = inputs["input_ids"][:, 1 - keep :]
        each = log_p.gather(-1, targets[..., None])[..., 0]
        return [
            float(each[i, start - len(row) :].sum()) for i, (row, start) in enumerate(zip(rows, starts, strict=True))
        ]


def _size(item: Item) -> int:
    return len(item.prompt) + max(map(len, item.choices), default=0)


def _seed(item: Item, seed: int) -> int:
    return int(content_key(item.key, seed), 16) >> 1


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text
