"""Items put to a model under a decoder: answers written, or given choices scored; in batches, resumable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch

from truthkit.activations.hooks import Hooked
from truthkit.decoding.discovery import PLAIN
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.engine.prompt_views import passages_by_row
from truthkit.decoding.engine.registry import FROM_PROMPT
from truthkit.decoding.engine.session import Session
from truthkit.decoding.methods.apc import APC
from truthkit.decoding.spec import DecoderSpec
from truthkit.errors import ArgumentError, ModelError
from truthkit.evaluation.running.image_choices import ImageChoices
from truthkit.evaluation.running.item import Item, check_context
from truthkit.evaluation.running.records import Records
from truthkit.evaluation.running.sampling import SeededSampling
from truthkit.files.writing import content_key
from truthkit.hf.sites import input_device
from truthkit.hf.spread import is_spread
from truthkit.images.reading import read_image
from truthkit.likelihood.continuation import continued
from truthkit.likelihood.log_probabilities import log_probabilities, log_probabilities_and_scores
from truthkit.likelihood.shared_images import can_share, generate_behind_images
from truthkit.text.encode import encode_prompts
from truthkit.text.tokens import text_tokenizer

_ITEMS_OF_CHOICES = 64
"""Items scored at a time: a record is written after each so many."""

_TOKENS_PER_ITEM = 16

_FIRST_SIZE = 16

_SEEN_APART = ("all", "prompt", "generated", "answer", "image")
"""Positions of steering that a token has by itself, wherever its prompt is cut in two."""

OnBatch = Callable[[int], None]
"""Called with the number of items that were just done."""

Ask: TypeAlias = "Callable[[Asking, Sequence[Item], Any], list[Any]]"
"""The outputs of a batch, JSON values; takes what `Asking.write` and `Asking.choose` take."""


@dataclass(frozen=True)
class Asking:
    """How items are put to a model.

    Attributes:
        model, processor: as from `tk.load`.
        decoder: for every batch anew where it needs the batch's images or contexts, else once.
        supplied: arguments of the decoder that only the caller knows, an amateur for one.
        max_new_tokens: of written answers.
        sample: draw tokens, by each item's own seed.
        temperature, top_p: of sampling.
        seed: another one gives other draws.
        batch_size: written answers at a time, or 16 times as many tokens of choices; halved whenever the memory does
            not suffice. None: 16, and on a GPU twice as many after every batch, until the memory does not suffice.
            Where several processes hold the model together, the size stays.
        share_prefix: read what the prompts of choices begin with once, and an image once for all questions about it.
        steerings: those at work on the model: what is shared depends on where they act.
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
    batch_size: int | None = None
    share_prefix: bool = True
    steerings: Sequence[Hooked] = ()

    @property
    def size(self) -> int:
        """The batch size to use."""
        return self.batch_size or _FIRST_SIZE

    def run(
        self,
        items: Sequence[Item],
        records: Records,
        on_batch: OnBatch = lambda _count: None,
        ask: Ask | None = None,
    ) -> None:
        """Ask all items that have no record yet, longest first but image by image, and record each batch when done.

        `ask` gives the outputs of a batch; None is `choose` where there are choices, else `write`.
        """
        check_context(items, self.decoder)
        todo = sorted((item for item in items if item.key not in records.done), key=_order)
        on_batch(len(items) - len(todo))
        per_batch = any(map(self.decoder.takes, FROM_PROMPT))
        fixed = None if per_batch else self.decoder.build(self.model, self.processor, **self.supplied)
        together = is_spread(self.model)  # what one process alone finds out must not decide
        size, growing = self.size, self.batch_size is None and self.model.device.type == "cuda" and not together
        while todo:
            batch = todo[: _ITEMS_OF_CHOICES if todo[0].choices else self._whole_images(todo, size)]
            start = time.perf_counter()
            try:
                asking = replace(self, batch_size=size)
                outputs = (ask or (Asking.choose if batch[0].choices else Asking.write))(asking, batch, fixed)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error) or size == 1 or together:
                    raise
                size, growing = max(size // 2, 1), False
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
            del todo[: len(batch)]
            on_batch(len(batch))
            size *= 2 if growing else 1

    def _whole_images(self, todo: Sequence[Item], size: int) -> int:
        """How many items to take: at most `size`, and all about their images where there is room."""
        if len(todo) <= size or not todo[0].images:
            return size
        cut = size
        while cut and todo[cut - 1].images == todo[size].images:
            cut -= 1
        return cut or size

    def write(self, batch: Sequence[Item], fixed: Any = None, **more: Any) -> list[str]:
        """The answers to a batch; `more` are further options of `generate`."""
        seen = {item.images: [read_image(path) for path in item.images] for item in batch}
        images = [seen[item.images] for item in batch]
        inputs = encode_prompts(self.processor, [item.prompt for item in batch], images, raw=batch[0].raw)
        tokenizer = text_tokenizer(self.processor, "an answer")
        options: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "do_sample": False}
        options |= {"temperature": None, "top_p": None, "top_k": None} | more
        if self.sample:
            seeds = [_seed(item, self.seed) for item in batch]
            options["logits_processor"] = [SeededSampling(seeds, temperature=self.temperature, top_p=self.top_p)]
        supplied = self.supplied | {"images": images, "context": [item.context for item in batch]}
        decoder = fixed or self.decoder.build(self.model, self.processor, **supplied)
        alone = self.decoder.name in PLAIN
        sharing = APC(self.model, beta=0.0) if alone else decoder
        apart = self.share_prefix and not any(
            one.of_whole_prompt or one.positions not in _SEEN_APART for one in self.steerings
        )
        rows = [
            ids[kept].tolist() for ids, kept in zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)
        ]
        places = [list(seen).index(item.images) for item in batch]
        several = fixed and images[0] and len(seen) < len(batch)
        if several and apart and isinstance(sharing, Decoder) and can_share(sharing, rows, places):
            firsts = [next(item for item in batch if item.images == paths) for paths in seen]
            trunk = encode_prompts(
                self.processor, [item.prompt for item in firsts], list(seen.values()), raw=firsts[0].raw
            )
            with sharing as session:
                new = generate_behind_images(session, rows, places, trunk, **options)
        else:
            device = input_device(self.model)
            moved = {k: value.to(device) for k, value in inputs.items() if isinstance(value, torch.Tensor)}
            with decoder:
                new = self.model.generate(**moved, **options)[:, inputs["input_ids"].shape[1] :]
        return [tokenizer.decode(row, skip_special_tokens=True).strip() for row in new]

    def choose(self, batch: Sequence[Item], fixed: Any = None) -> list[list[float]]:
        """The log-probability of every choice of a batch: the sum over its tokens, natural logarithm.

        Prompt and choice are tokenised together and cut behind as many tokens as the prompt has. Prompts with images
        are what `write` reads (`ImageChoices`); without images no chat template is put around them.

        Raises:
            ArgumentError: a choice without a token of its own; a decoder that only searches.
            ModelError: a score is NaN.
        """
        return [output["log_probs"] for output in self._choose(batch, fixed, raw=False)]

    def choose_both(self, batch: Sequence[Item], fixed: Any = None) -> list[dict[str, list[float]]]:
        """`choose`, as `log_probs`; and under a contrast the sums of its own scores, not normalised, as `raw`.

        These are what the released code of DoLa and ICD sums: see `log_probabilities_and_scores`.
        """
        return self._choose(batch, fixed, raw=True)

    def _choose(self, batch: Sequence[Item], fixed: Any, *, raw: bool) -> list[dict[str, list[float]]]:
        if any(item.images for item in batch):
            return _sound(self._behind_images(fixed).scores(batch, raw=raw))
        tokenizer = text_tokenizer(self.processor, "a choice")
        pairs = [continued(tokenizer, item.prompt, choice) for item in batch for choice in item.choices]
        rows, starts = [row for row, _ in pairs], [start for _, start in pairs]
        supplied = dict(self.supplied)
        if self.decoder.takes("context"):
            supplied["context"] = passages_by_row(rows, [item.context for item in batch for _ in item.choices])
        decoder = fixed or self.decoder.build(self.model, self.processor, **supplied)
        self._check_scores(decoder)
        options: dict[str, Any] = {"token_budget": _TOKENS_PER_ITEM * self.size, "share_prefix": self.share_prefix}
        options["steerings"] = self.steerings
        found: dict[str, list[float]] = {}
        with decoder as entered:
            session = entered if isinstance(entered, Session) else None
            if raw and session is not None and session.contrasts:
                both = log_probabilities_and_scores(self.model, rows, starts, session, **options)
                found |= dict(zip(("log_probs", "raw"), both, strict=True))
            else:
                found["log_probs"] = log_probabilities(self.model, rows, starts, session, **options)
        ends = {name: iter(scores) for name, scores in found.items()}
        return _sound([{name: [next(end) for _ in item.choices] for name, end in ends.items()} for item in batch])

    def _check_scores(self, decoder: Any) -> None:
        """Raise an `ArgumentError` for a decoder that gives choices no scores."""
        if self.decoder.name not in PLAIN and not isinstance(decoder, Decoder):
            raise ArgumentError(
                f"{self.decoder.name} searches for an answer and gives a choice no probability of its own; use another "
                "decoder, or a task whose answers are written."
            )

    def _behind_images(self, fixed: Any) -> ImageChoices:
        def build(items: Sequence[Item], images: list[list[Any]]) -> Decoder:
            of_prompts = {"images": images, "context": [item.context for item in items]}
            built = fixed or self.decoder.build(self.model, self.processor, **self.supplied | of_prompts)
            self._check_scores(built)
            return built if isinstance(built, Decoder) else APC(self.model, beta=0.0)

        return ImageChoices(self.model, self.processor, build, self.size, self.share_prefix, self.steerings)


def _sound(found: list[dict[str, list[float]]]) -> list[dict[str, list[float]]]:
    """The same scores, none of which may be NaN."""
    if any(math.isnan(score) for scores in found for some in scores.values() for score in some):
        raise ModelError("the score of a choice is NaN; load the model in another dtype, as float32.")
    return found


def _order(item: Item) -> tuple[Any, ...]:
    return item.images, -len(item.prompt) - max(map(len, item.choices), default=0)


def _seed(item: Item, seed: int) -> int:
    return int(content_key(item.key, seed), 16) >> 1


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text
