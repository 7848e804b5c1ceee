"""One model that answers rows of one kind together, each as it would be answered alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from truthkit.decoding.discovery import PLAIN, decoder_class
from truthkit.decoding.engine.by_row import ByRow
from truthkit.decoding.engine.decoder import Decoder
from truthkit.decoding.spec import DecoderSpec
from truthkit.endpoint.echo import check_reads_prompts, score_prompts
from truthkit.endpoint.offer import Offer
from truthkit.endpoint.row import Row
from truthkit.endpoint.steps import AllOver, Choosing, Following
from truthkit.endpoint.wish import BEAMS, SEARCHES, Wish
from truthkit.errors import ArgumentError
from truthkit.hf.padding import neutral_to_padding
from truthkit.hf.room import context_length
from truthkit.hf.sites import image_token, input_device
from truthkit.hf.wrapping import language_half, plain_model
from truthkit.images.reading import read_image
from truthkit.steering.spec import SteerSpec
from truthkit.steering.steer import Steering
from truthkit.steering.vector import SteeringVector
from truthkit.steering.vision import VisionSteering, VisionVector
from truthkit.text.encode import encode_rendered
from truthkit.text.tokens import padded, text_tokenizer

_KEPT = 16
"""Decoders that are kept once they are built."""

_NOTHING_AT_0 = ("add", "relative", "opposed", "project_out", "patch")
"""Modes of steering in which strength 0 changes no bit of a state."""


class Engine:
    """Answers for one model; one thread at a time may use it.

    Args:
        model: as from `tk.load`.
        processor: its tokenizer or processor.
        name: what clients call the model.
        decoder: for requests that name none.
        amateurs: what decoders may contrast with, by name: an adapter's name or path, or what `tk.load` returns.
        steers: vectors that every answer is steered by, unless its request says otherwise.
        new_tokens: of an answer, at most.

    Attributes:
        offer: what requests can choose among.

    Raises:
        ArgumentError, ModelError, NotAvailableError: a vector cannot be read or is not for this model, or two have one
            name; the decoder is not for it.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str,
        *,
        decoder: DecoderSpec,
        amateurs: dict[str, Any] | None = None,
        steers: Sequence[SteerSpec] = (),
        new_tokens: int = 4096,
    ):
        self.model, self.processor = model, processor
        self.tokenizer = text_tokenizer(processor, "a server")
        self._amateurs = amateurs or {}
        self._vectors: dict[str, tuple[SteerSpec, SteeringVector | VisionVector]] = {}
        for spec in steers:
            vector = spec.load()
            spec.on(vector, model, processor)
            if (stem := Path(spec.path).stem) in self._vectors:
                raise ArgumentError(f"--steer has two vectors named {stem!r}; rename one of the files.")
            self._vectors[stem] = spec, vector
        self._shared = [_shared(spec, vector) for spec, vector in self._vectors.values()]
        plain = plain_model(model)
        self._same_length = not neutral_to_padding(language_half(plain))
        ends = plain.generation_config.eos_token_id
        self.ends: list[int] = ends if isinstance(ends, list) else [] if ends is None else [ends]
        self._built: dict[str, Any] = {}
        self.image_token = image_token(plain)
        self.offer = Offer(
            name,
            decoder,
            list(self._amateurs),
            {stem: spec.strength_of(vector) for stem, (spec, vector) in self._vectors.items()},
            takes_images=hasattr(processor, "image_processor"),
            room=context_length(plain),
            vocabulary=plain.config.get_text_config(decoder=True).vocab_size,
            new_tokens=new_tokens,
        )
        self.offer.check(decoder)
        if not (decoder.takes("context") or decoder.takes("images") or decoder.name in PLAIN):
            self._build(decoder, [])

    def kind(self, wish: Wish) -> Any:
        """Equal for wishes that `answer` can take together."""
        return wish.kind(_unlike(wish.spec), self._shared, same_length=self._same_length)

    def answer(self, rows: Sequence[Row]) -> None:
        """Answer rows of one kind, each up to its own end.

        Where that fails before anything was said, each is answered alone, so that it fails for its own reasons only.
        """
        rows = [row for row in rows if not row.check()]
        if not rows:
            return
        try:
            self._together(rows)
        except Exception as error:
            if len(rows) == 1 or any(row.begun for row in rows):
                for row in rows:
                    row.fail(error)
                return
        else:
            return
        for row in rows:
            self.answer([row])

    def _together(self, rows: Sequence[Row]) -> None:
        first = rows[0].wish
        if not first.scores_prompt:
            for row in rows:
                if row.wish.echo:
                    row.read([])
                if not row.wish.limit:
                    row.end("length")
            rows = [row for row in rows if not row.over]
        if not rows:
            return
        wishes = [row.wish for row in rows]
        with torch.no_grad(), ExitStack() as stack:
            for steering in self._steerings(wishes):
                stack.enter_context(steering)
            decoder = None if first.spec.name in PLAIN else self._decoder(wishes)
            session = None if decoder is None else stack.enter_context(decoder)
            if first.scores_prompt:
                check_reads_prompts(session, first.spec.name in SEARCHES)
                score_prompts(self.model, rows, session)
            else:
                self._generate(rows)

    def _generate(self, rows: Sequence[Row]) -> None:
        inputs = self._inputs([row.wish for row in rows])
        options: dict[str, Any] = {"max_new_tokens": max(row.wish.limit for row in rows), "do_sample": False}
        options |= {"temperature": None, "top_p": None, "top_k": None}
        name = rows[0].wish.spec.name
        options["stopping_criteria"] = [AllOver(rows) if name == BEAMS else Following(rows)]
        if name not in SEARCHES:
            options["logits_processor"] = [Choosing(rows)]
        made = self.model.generate(**inputs, **options)
        if name == BEAMS:
            for row, ids in zip(rows, made[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
                for token in ids:
                    row.put(token)
        for row in rows:
            row.end("stop")

    def _inputs(self, wishes: Sequence[Wish]) -> dict[str, torch.Tensor]:
        """Model inputs, left-padded, where the model takes them."""
        if len(wishes[0].images):
            images = [list(map(read_image, wish.images.read())) for wish in wishes]
            texts = [wish.prompt for wish in wishes]
            made = encode_rendered(self.processor, texts, images, templated=wishes[0].templated)
        else:
            pad = self.tokenizer.pad_token_id
            ids, mask = padded([wish.ids for wish in wishes], pad=0 if pad is None else pad)
            made = {"input_ids": ids, "attention_mask": mask}
        device = input_device(self.model)
        return {name: value.to(device) for name, value in made.items() if isinstance(value, torch.Tensor)}

    def _decoder(self, wishes: Sequence[Wish]) -> Any:
        """The decoder for these prompts, each with strengths of its own."""
        specs = {wish.spec.text: wish.spec for wish in wishes}
        built = {text: self._build(spec, wishes) for text, spec in specs.items()}
        return ByRow([built[wish.spec.text] for wish in wishes]) if len(built) > 1 else built.popitem()[1]

    def _build(self, spec: DecoderSpec, wishes: Sequence[Wish]) -> Any:
        """A decoder for these prompts; the same one every time where it takes nothing of them."""
        chosen = [part.options["amateur"] for part in spec.parts or (spec,) if part.options.get("amateur")]
        supplied: dict[str, Any] = {"amateur": self._amateurs.get(chosen[0], chosen[0])} if chosen else {}
        if spec.takes("context") or spec.takes("images"):
            images = [list(map(read_image, wish.images.read())) for wish in wishes]
            supplied |= {"context": [wish.context for wish in wishes], "images": images}
            return spec.build(self.model, self.processor, **supplied)
        if spec.text not in self._built:
            while len(self._built) >= _KEPT:
                del self._built[next(iter(self._built))]
            self._built[spec.text] = spec.build(self.model, self.processor, **supplied)
        return self._built[spec.text]

    def _steerings(self, wishes: Sequence[Wish]) -> list[Steering | VisionSteering]:
        """A steering by each vector that one of the wishes has a strength of."""
        steerings = []
        for number, (spec, vector) in enumerate(self._vectors.values()):
            strengths = [wish.strengths[number] for wish in wishes]
            if not any(strengths):
                continue
            if isinstance(vector, SteeringVector):
                steering: Steering | VisionSteering = vector.steer(
                    self.model,
                    strength=strengths,
                    processor=self.processor,
                    allow_other_model=spec.allow_other_model,
                    **spec.options_of(vector),
                )
            else:
                steering = replace(spec, strength=strengths[0]).on(vector, self.model, self.processor)
            steerings.append(steering)
        return steerings


def _unlike(spec: DecoderSpec) -> Hashable:
    """What of a decoder the rows of a batch must have in common; strengths of their own they may have."""
    if spec.name in PLAIN:
        return "plain"
    if spec.parts or not issubclass(known := decoder_class(spec.name), Decoder):
        return spec.text
    return spec.name, repr(sorted((key, value) for key, value in spec.options.items() if key not in known.strengths))


def _shared(spec: SteerSpec, vector: SteeringVector | VisionVector) -> Callable[[float], Hashable]:
    """What rows of a batch must have in common of their strengths of a vector, of which 0 is to leave a row alone."""
    if not isinstance(vector, SteeringVector):
        return lambda strength: strength
    if spec.options.get("mode", "add") in _NOTHING_AT_0 and not spec.options.get("keep_norm"):
        return lambda _strength: None
    return bool
